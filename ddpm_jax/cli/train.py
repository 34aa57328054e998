"""Trains a DDPM (Ho et al. 2020, Algorithm 1); run again, it continues where it stopped.

ddpm-train --config=cifar10 --workdir=runs/cifar10 [--config.optim.lr=1e-4 ...] [--init_from=runs/other]

--config takes the name of an experiment that comes with the package, or the path of a file with `get_config`, and
perhaps with `get_network` and `open_data`: see docs/own_data_and_network.md.
"""

import sys
from pathlib import Path

import ml_collections
from absl import flags
from ml_collections import config_flags

from ddpm_jax import evaluation, parallel, training
from ddpm_jax.cli import app, experiments
from ddpm_jax.runs import dry_run, initial_weights, own, sample_files, tpu_report, trainer, workdir
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
    flags.DEFINE_string("target", "", "With --dry_run: the TPU that it is for, such as v5e:2x4; needs no TPU.")
    flags.mark_flags_as_required(["config", "workdir"])


def _train(values: flags.FlagValues) -> int:
    directory = app.folder(values.workdir)
    init_from = _origin(values)
    given = experiments.own_of(values)
    if values.dry_run:
        return _report(values.config, directory, values.target, init_from, given)
    if values.target:
        raise ValueError("--target says what to compile for, not what to run on: give --dry_run, too.")
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


def _report(
    settings: ml_collections.ConfigDict, directory: Path, target: str, init_from: initial_weights.Origin | None,
    given: own.Own,
) -> int:  # fmt: skip
    """Prints what the run would be and need, and writes nothing; returns 1 where it does not fit on the target.

    Raises:
        ValueError: as a run would: of the work folder at once, of the data after all else has been said.
        FileNotFoundError: if there is no data, likewise.
    """
    devices = parallel.tpu_devices(target) if target else None
    experiment = parallel.raise_on_all(
        lambda: trainer.checked_experiment(settings, given, num_devices=devices and len(devices))
    )
    parallel.agree(lambda: workdir.check(directory, settings))
    initial_weights.read(experiment, directory, init_from)
    if devices is None:
        lower = lambda other: trainer.lower(trainer.checked_experiment(other, given))  # noqa: E731
        dry_run.report(experiment, trainer.lower(experiment), lower)
        return 0
    programs = {
        tpu_report.TRAIN_STEP: lambda: trainer.lower(experiment, devices),
        tpu_report.SAMPLER: lambda: sample_files.lower_sample(experiment, devices),
    }
    return 0 if tpu_report.report(experiment, target, programs) else 1
