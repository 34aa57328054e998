"""Writes the paper's tables and figures from work folders, with our numbers beside its own.

    ddpm-paper runs/cifar10 [--figures]
    ddpm-paper runs/cifar10 runs/lsun_cat --out=report [--figures]

The folders are those of ddpm-train, measured with ddpm-evaluate. The paper's numbers stand beside those of runs on the
same images. Writes tables.md and tables.json, which link the figures.
"""

from pathlib import Path

from absl import flags

from ddpm_jax import parallel
from ddpm_jax.cli import app
from ddpm_jax.paper import summary
from ddpm_jax.runs import workdir
from ddpm_jax.runtime import compilation_cache


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _paper, doc=__doc__, positional="WORKDIR...")


def _define_flags() -> None:
    flags.DEFINE_string(
        "out", None, f"The folder to write to. Default: WORKDIR/{workdir.REPORT}; of several it must be given."
    )
    flags.DEFINE_bool(
        "figures", False,
        f"Draw the missing ones of Figures 5 to 10 and the neighbours; 5 and 10 of {summary.NUM_IMAGES} images.",
    )  # fmt: skip


def _paper(values: flags.FlagValues, folders: list[str]) -> int:
    if not folders:
        raise ValueError("Name at least one work folder.")
    if len(folders) > 1 and not values.out:
        raise ValueError(f"--out=... must be given: the folder for the tables of {len(folders)} runs.")
    compilation_cache.enable()
    out = app.folder(values.out, "--out") if values.out else Path(folders[0]) / workdir.REPORT
    problems = []

    def write() -> None:
        print(summary.write([Path(folder) for folder in folders], out))
        print(f"Written to {out / 'tables.md'} and {out / 'tables.json'}.")

    try:
        for folder in map(Path, folders if values.figures else []):
            problems += summary.draw_missing_figures(folder)
    except Exception:
        if parallel.is_primary():
            write()  # whatever happened to a figure
        raise
    parallel.agree(write)
    if problems:
        raise ValueError("\n".join(problems))
    return 0
