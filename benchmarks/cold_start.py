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
    results = Report("Cold start", {"from": "the command", "to": "the first report of a step, or the first samples"})
    repeats = 1 if quick else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiments = {"digits": _digits()}
        if not quick:
            experiments["CIFAR-10 model"] = _cifar10(folder / "images")
        for model, settings in experiments.items():
            runs = [folder / f"{model} {i}" for i in range(1 + repeats)]
            train = [["train.py", *settings, f"--workdir={run}"] for run in runs]
            sample = [["sample.py", "--num_samples=1", f"--workdir={runs[0]}", f"--out={run}.npz"] for run in runs]
            for what, commands in (("step", train), ("sample", sample)):
                _compare(results, f"{model}, first {what}", commands, cache=folder / f"{model} {what}")
    return results


def _digits() -> list[str]:
    return ["--config=configs/digits.py", "--config.train.log_every=10", "--config.train.num_steps=10"]


def _cifar10(images: Path) -> list[str]:
    """On a CPU with a chain of 10 steps, as 1000 would take longer than all else."""
    images.mkdir()
    for i in range(16):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
    batch_size, dtype, timesteps = (128, "bfloat16", 1000) if hardware.on_gpu() else (8, "float32", 10)
    return [
        "--config=configs/cifar10.py", "--config.data.name=image_folder", f"--config.data.data_dir={images}",
        "--config.train.log_every=1", "--config.train.num_steps=1", f"--config.train.batch_size={batch_size}",
        f"--config.model.dtype={dtype}", f"--config.diffusion.num_timesteps={timesteps}",
    ]  # fmt: skip


def _compare(results: Report, what: str, commands: list[list[str]], *, cache: Path) -> None:
    """The first command fills the cache and is the one without; the others find it full."""
    first, *others = (_seconds(command, cache) for command in commands)
    results.rows[f"{what}, nothing kept"] = Measured([first], "s")
    results.rows[f"{what}, compiled programs kept"] = Measured(others, "s")
    results.ratios[f"{what}: time saved by the cache"] = Ratio(1.0 - min(others) / first)


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
