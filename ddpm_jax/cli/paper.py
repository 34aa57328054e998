"""Writes the paper's tables and figures from work folders, with our numbers beside its own.

    ddpm-paper runs/cifar10 [runs/...] [--out=report] [--figures]

The folders are those of ddpm-train, measured with ddpm-evaluate.
"""

from pathlib import Path

from absl import flags

from ddpm_jax import parallel
from ddpm_jax.cli import app
from ddpm_jax.paper import summary
from ddpm_jax.runtime import compilation_cache


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _paper, doc=__doc__, positional="WORKDIR...")


def _define_flags() -> None:
    flags.DEFINE_string("out", "report", "The folder to write to.")
    flags.DEFINE_bool(
        "figures", False,
        f"Draw the missing ones of Figures 5 to 10 and the neighbours; 5 and 10 of {summary.NUM_IMAGES} images.",
    )  # fmt: skip


def _paper(values: flags.FlagValues, folders: list[str]) -> int:
    if not folders:
        raise ValueError("Name at least one work folder.")
    compilation_cache.enable()
    out = Path(values.out)
    if values.figures:
        for folder in map(Path, folders):
            summary.draw_missing_figures(folder)
    print(parallel.agree(lambda: summary.write([Path(folder) for folder in folders], out)))
    print(f"Written to {out / 'tables.md'} and {out / 'tables.json'}.")
    return 0
