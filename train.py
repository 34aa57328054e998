"""Trains a DDPM (Ho et al. 2020, Algorithm 1); run again, it continues where it stopped.

python train.py --config=configs/cifar10.py --workdir=runs/cifar10 [--config.optim.lr=1e-4 ...]
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import ml_collections
import numpy as np
import optax
from absl import app, flags, logging
from ml_collections import config_flags

from configs import default
from ddpm_jax import (
    checkpoint,
    compilation_cache,
    data,
    dry_run,
    experiment,
    images,
    parallel,
    profiling,
    sampling,
    training,
    workdir,
)
from ddpm_jax.progress import Progress
from ddpm_jax.signals import StopRequest

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment: a file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder for all that this run writes.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what the run would be and need (memory, data), and leave.")
flags.mark_flags_as_required(["config", "workdir"])


def train(config: ml_collections.ConfigDict, directory: Path) -> int:
    """Trains to the end or a signal; returns the exit code."""
    experiment.check(config, default.get_config())
    made = experiment.make(config)
    parallel.check_batch_size("train.batch_size", config.train.batch_size)
    if _DRY_RUN.value:
        return rehearse(made, directory)
    source = made.load_data()
    workdir.claim(directory, config)
    print(f"{len(source)} images of {made.image_shape}, {parallel.describe()}, folder {directory.absolute()}")

    optim, settings = config.optim, config.train
    optimizer, train_step = make_step(made)
    saved = checkpoint.Checkpoints(
        directory / workdir.CHECKPOINTS, keep=settings.keep, keep_period=settings.keep_period
    )
    state, start = first_state(made, optimizer, saved)
    train_steps = profiling.Traced(
        parallel.pmap_train_steps(train_step), steps=profiling.parse(settings.profile), start_step=start,
        directory=directory / workdir.PROFILE,
    )  # fmt: skip
    progress = Progress(
        directory, start_step=start, num_steps=settings.num_steps, batch_size=settings.batch_size,
        log_every=settings.log_every, learning_rate=training.learning_rate_schedule(optim.lr, optim.warmup_steps),
    )  # fmt: skip
    draw_grid = functools.partial(save_grid, made, parallel.pmap_batches(made.sample), directory)

    with StopRequest() as stop, contextlib.closing(saved), contextlib.closing(progress), train_steps:
        step = start
        for step, pixels in dispatches(config, source, start):
            state, metrics = train_steps(state, pixels)
            progress.add(step, metrics)
            leaving = stop.received or step == settings.num_steps
            if leaving or step % settings.checkpoint_every == 0:
                progress.flush()
                saved.save(state)
            if settings.sample_every and step % settings.sample_every == 0 and not stop.received:
                progress.flush()
                with progress.paused():
                    draw_grid(state, step)
            if leaving:
                break
    print(f"{'Stopped' if stop.received else 'Finished'} at step {step}, saved in {saved.directory}.")
    return stop.exit_code


def make_step(made: experiment.Experiment) -> tuple[optax.GradientTransformation, Callable]:
    """The optimizer, and the train step `(state, pixels) -> state, metrics` of one device."""
    optim = made.config.optim
    optimizer = training.make_optimizer(lr=optim.lr, warmup_steps=optim.warmup_steps, clip_norm=optim.clip_norm)
    return optimizer, functools.partial(
        training.train_step, rng=jax.random.key(made.config.train.seed), process=made.process, model=made.model,
        optimizer=optimizer, ema_decay=optim.ema_decay, ema_warmup=optim.ema_warmup, flip=made.config.data.flip,
        axis_name=parallel.AXIS,
    )  # fmt: skip


def rehearse(made: experiment.Experiment, directory: Path) -> int:
    """Says what the run would be and need, and writes nothing; returns the exit code.

    Raises:
        ValueError: as a run would: of the work folder at once, of the data after all else has been said.
        FileNotFoundError: if there is no data, likewise.
    """
    workdir.check(directory, made.config)
    settings = made.config.train
    optimizer, train_step = make_step(made)
    state = checkpoint.abstract(jax.eval_shape(creator(made, optimizer)), parallel.replicated())
    shape = (settings.steps_per_dispatch, settings.batch_size, *made.image_shape)
    dry_run.report(made, parallel.lower_train_steps(train_step, state, shape=shape))
    return 0


def creator(made: experiment.Experiment, optimizer: optax.GradientTransformation) -> Callable[[], training.TrainState]:
    """What makes the state of a fresh start."""
    return functools.partial(
        training.create_state, made.model, optimizer, rng=jax.random.key(made.config.train.seed),
        image_shape=made.image_shape,
    )  # fmt: skip


def first_state(
    made: experiment.Experiment, optimizer: optax.GradientTransformation, saved: checkpoint.Checkpoints
) -> tuple[training.TrainState, int]:
    """The newest checkpoint, or else a fresh start; replicated, with the steps made so far."""
    create = creator(made, optimizer)
    like = checkpoint.abstract(jax.eval_shape(create), parallel.replicated())
    if (state := saved.restore(like)) is None:
        print("Starting from scratch.")
        return parallel.replicate(create()), 0
    print(f"Continuing from step {int(state.step)} in {saved.directory}.")
    return state, int(state.step)


def dispatches(config: ml_collections.ConfigDict, source: data.Source, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """The step that each dispatch ends with, and its images [K, B, H, W, C] uint8."""
    settings = config.train
    group = settings.steps_per_dispatch
    if start % group:
        raise ValueError(f"train.steps_per_dispatch={group} must divide the {start} steps made before; try 1.")
    batches = data.batches(source, seed=settings.seed, batch_size=settings.batch_size, start_step=start)
    for step in range(start + group, settings.num_steps + 1, group):
        yield step, np.stack([next(batches).images for _ in range(group)])
    batches.close()


def save_grid(made: experiment.Experiment, draw, directory: Path, state: training.TrainState, step: int) -> None:
    """Draws samples from the averaged weights into samples/step_<step>.png."""
    settings = made.config.sample
    drawn = [
        np.asarray(images.to_uint8(draw(state.ema_params, sampling.image_keys(settings.seed, indices))))
        for indices in np.array_split(np.arange(settings.num_samples), -(-settings.num_samples // settings.batch_size))
    ]
    path = directory / workdir.SAMPLES / f"step_{step:08d}.png"
    images.save_png(path, images.grid(np.concatenate(drawn)))
    print(f"Samples of step {step}: {path}")


def parse_flags(argv: list[str]) -> list[str]:
    """As absl does, but an unknown setting is one sentence too."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:  # of ml_collections, with the nearest name
        raise SystemExit(f"train.py: unknown setting {' '.join(str(error.args[0]).split())}") from None


def main(argv: list[str]) -> int:
    """Runs the command and says what went wrong in a sentence."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}; settings are given as --config.SECTION.NAME=VALUE.")
    logging.set_verbosity(logging.WARNING)
    if not _DRY_RUN.value:  # which writes nothing
        compilation_cache.enable()
    directory = Path(_WORKDIR.value)
    try:
        return train(_CONFIG.value, directory)
    except training.NonFiniteError as error:
        kept = sorted((directory / workdir.CHECKPOINTS).glob("[0-9]*"), key=lambda path: int(path.name))
        print(
            f"{error}. The last good checkpoint is {kept[-1] if kept else 'none: it came too early'}.", file=sys.stderr
        )
    except (ValueError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
