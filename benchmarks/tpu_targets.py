"""What the TPU's own compiler says of the train step at the paper's batches; it needs libtpu, and no TPU.

python -m benchmarks.tpu_targets [--only=cifar10,bfloat16] [--markdown]: compiles the rows that are not kept yet, one
after another, minutes each, and prints the table. --only takes words of the rows; --markdown compiles nothing.
"""

import argparse
import concurrent.futures
import importlib
import itertools
import json
import multiprocessing

from benchmarks import command, hardware
from ddpm_jax import parallel
from ddpm_jax.runs import tpu_report, trainer
from ddpm_jax.runtime import compilation, program

_KEPT = command.RESULTS / "tpu" / "targets.json"
_EXPERIMENTS = ("cifar10", "celebahq256", "lsun_bedroom_large")
_TARGETS = ("v5e:2x4", "v4:2x2x1", "v4:2x2x4", "v5e:8x8", "v5p:2x2x1", "v6e:2x4")
_ROWS = tuple(itertools.product(("bfloat16", "float32"), _EXPERIMENTS, _TARGETS))
_HEADER = (
    "| experiment | precision | TPU | memory a chip | FLOPs a chip | bytes moved a chip | all-reduce a step | "
    "roofline | compiled in |\n|---|---|---|---:|---:|---:|---:|---:|---:|"
)


def main() -> None:
    """Compiles what is missing, keeps each row at once, and prints all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="words that a row must have, with commas between them")
    parser.add_argument("--markdown", action="store_true", help="print what is kept, and compile nothing")
    arguments = parser.parse_args()
    kept = json.loads(_KEPT.read_text()) if _KEPT.exists() else {}
    wanted = set(filter(None, arguments.only.split(",")))
    for words in () if arguments.markdown else _ROWS:
        name = " ".join(words)
        if name not in kept and wanted <= set(words):
            # In a process of its own: the compiler keeps its memory, 24 GB after five rows of 256x256.
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                kept[name] = process.submit(_compiled, *words).result()
            _KEPT.parent.mkdir(exist_ok=True)
            _KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    print(markdown(kept))


def markdown(kept: dict[str, dict]) -> str:
    """Formats the rows that are kept as a table."""
    return "\n".join([_HEADER, *(_row(*words, kept[" ".join(words)]) for words in _ROWS if " ".join(words) in kept)])


def _compiled(dtype: str, experiment: str, target: str) -> dict:
    settings = importlib.import_module(f"ddpm_jax.configs.{experiment}").get_config()
    settings.model.dtype = dtype
    devices = parallel.tpu_devices(target)
    built = trainer.checked_experiment(settings, num_devices=len(devices))
    with compilation.announcing(f"{experiment} in {dtype} for {target}"):
        needed = tpu_report.compiled(trainer.lower(built, devices))
    fits = isinstance(needed, tpu_report.Compiled)
    limits = dict(roofline_s=needed.least_seconds(parallel.chip(target))) if fits else {}
    return dict(
        fits=fits, chips=len(devices), batch_size=settings.train.batch_size, **needed._asdict(), **limits,
        versions=program.versions(), environment=hardware.describe(),
    )  # fmt: skip


def _row(dtype: str, experiment: str, target: str, row: dict) -> str:
    start = f"| {experiment}, batch {row['batch_size']} | {dtype} | {target} |"
    if not row["fits"]:
        return f"{start} does not fit: {row['message']} | | | | | {row['seconds']:.0f} s |"
    reduced = sum(row["collectives"].get("all-reduce", []))
    return (
        f"{start} {row['memory'] / 2**30:.2f} GiB | {row['flops']:.3g} | {row['hbm_bytes']:.3g} | "
        f"{reduced / 2**20:.0f} MiB | {1 / max(row['roofline_s']):.1f} steps/s | {row['seconds']:.0f} s |"
    )


if __name__ == "__main__":
    main()
