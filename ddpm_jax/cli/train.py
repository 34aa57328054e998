"""Trains a DDPM (Ho et al. 2020, Algorithm 1); run again, it continues where it stopped.

ddpm-train --config=cifar10 --workdir=runs/cifar10 [--config.optim.lr=1e-4 ...] [--init_from=runs/other]

--config takes the name of an experiment that comes with the package, or the path of a file with `get_config`, and
perhaps with `get_network` and `open_data`: see docs/own_data_and_network.md.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from ddpm_jax import evaluation, parallel, training
from ddpm_jax.cli import app
from ddpm_jax.runs import initial_weights, own, trainer, workdir
from ddpm_jax.runtime import compilation_cache, files

_OPEN_FILES = 128  # at a time, most of them while a checkpoint is written: 45 have been counted


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _train, doc=__doc__)


def _define_flags() -> None:
    config_flags.DEFINE_config_file("config", help_string="The experiment: its name, or a file with get_config.")
    flags.DEFINE_string("workdir", None, "The folder for all that this run writes.")
    flags.DEFINE_bool("dry_run", False, "Say what the run would be and need (memory, data), and leave.")
    flags.DEFINE_string("init_from", None, "A work folder: start a new run from its weights, to fine-tune them.")
    flags.DEFINE_string(
        "init_weights", "", "Of --init_from: raw, ema, ...; as its config's sample.weights if not given."
    )
    flags.DEFINE_integer("init_step", None, "Of --init_from: the step of the checkpoint; the newest if not given.")
    flags.DEFINE_bool("init_reinit", False, "Initialise anew what does not fit of --init_from, and leave out the rest.")
    flags.mark_flags_as_required(["config", "workdir"])


def _train(values: flags.FlagValues) -> int:
    directory = app.folder(values.workdir)
    init_from = _origin(values)
    file = config_flags.get_config_filename(values["config"]).split(":")[0]  # what follows is for its get_config
    given = own.from_file(file, values.config)
    if values.dry_run:
        trainer.report(values.config, directory, init_from=init_from, own=given)
        return 0
    parallel.raise_on_all(lambda: files.allow_open(_OPEN_FILES))
    compilation_cache.enable()
    try:
        return trainer.train(
            values.config, directory, prepare_evaluation=evaluation.prepare, init_from=init_from, own=given
        ).exit_code
    except training.NonFiniteError as error:
        kept = sorted((directory / workdir.CHECKPOINTS).glob("[0-9]*"), key=lambda path: int(path.name))
        print(
            f"{error}. The last good checkpoint is {kept[-1] if kept else 'none: it came too early'}.", file=sys.stderr
        )
        return 1


def _origin(values: flags.FlagValues) -> initial_weights.Origin | None:
    if values.init_from:
        return initial_weights.Origin(
            Path(values.init_from), weights=values.init_weights, step=values.init_step, reinit=values.init_reinit
        )
    if values.init_weights or values.init_step is not None or values.init_reinit:
        raise ValueError("--init_weights, --init_step and --init_reinit say what to take of --init_from: give it, too.")
    return None
