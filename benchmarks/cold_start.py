"""From the command to the first step and to the first sample: without compiled programs kept, and with them.

Real command lines, each in a process of its own. python -m benchmarks.cold_start [--quick]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import command, hardware
from benchmarks.report import Measured, Ratio, Report

_ROOT = Path(__file__).parents[1]


def measure(*, quick: bool) -> Report:
    """Seconds, by `train.py` and `sample.py`."""
    found = Report("Cold start", {"from": "the command", "to": "the first report of a step, or the first samples"})
    with tempfile.TemporaryDirectory() as folder:
        experiments = {"digits": _digits(Path(folder))}
        if not quick:
            experiments["CIFAR-10 model"] = _cifar10(Path(folder))
        for name, (train, sample) in experiments.items():
            for what, arguments in ((f"{name}, first step", train), (f"{name}, first sample", sample)):
                _compare(found, what, arguments, cache=Path(folder) / f"cache {what}", repeats=1 if quick else 3)
    return found


def _digits(folder: Path) -> tuple[list[str], list[str]]:
    train = ["train.py", "--config=configs/digits.py", "--config.train.log_every=10", "--config.train.num_steps=10"]
    return train, ["sample.py", "--num_samples=1", f"--workdir={folder / 'digits'}"]


def _cifar10(folder: Path) -> tuple[list[str], list[str]]:
    (folder / "images").mkdir()
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    gpu = hardware.on_gpu()
    train = [
        "train.py", "--config=configs/cifar10.py", "--config.data.name=image_folder",
        f"--config.data.data_dir={folder / 'images'}", "--config.train.log_every=1", "--config.train.num_steps=1",
        f"--config.train.batch_size={128 if gpu else 8}", f"--config.model.dtype={'bfloat16' if gpu else 'float32'}",
        "--config.diffusion.num_timesteps=1000" if gpu else "--config.diffusion.num_timesteps=10",
    ]  # fmt: skip
    return train, ["sample.py", "--num_samples=1", f"--workdir={folder / 'cifar10'}"]


def _compare(found: Report, what: str, arguments: list[str], *, cache: Path, repeats: int) -> None:
    """The first run fills the cache and is the one without; the next find it."""
    folder = cache.parent / ("cifar10" if "CIFAR" in what else "digits")
    times = []
    for i in range(1 + repeats):
        trained = arguments[0] == "train.py"
        run = [*arguments, f"--workdir={folder if i == 0 else folder.with_name(f'{folder.name}_{i}')}"]
        run = run if trained else [*arguments, f"--out={cache.parent / f'{cache.name} {i}.npz'}"]
        times.append(_seconds(run, cache))
    without, with_it = f"{what}, nothing kept", f"{what}, compiled programs kept"
    found.rows[without], found.rows[with_it] = Measured(times[:1], "s"), Measured(times[1:], "s")
    found.ratios[f"{what}: time saved by the cache"] = Ratio(1.0 - min(times[1:]) / times[0])


def _seconds(arguments: list[str], cache: Path) -> float:
    """Until the line of the first step is printed, or the end.

    Raises:
        subprocess.CalledProcessError: if the command fails.
    """
    environment = os.environ | {"DDPM_JAX_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    begin, first = time.perf_counter(), None
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    for line in process.stdout:
        if line.startswith(("step ", "Images: ")) and first is None:
            first = time.perf_counter() - begin
    if process.wait() or first is None:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return first


if __name__ == "__main__":
    command.run(measure)
