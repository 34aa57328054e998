"""Trains a DDPM (Ho et al. 2020, Algorithm 1); run again, it continues where it stopped.

python train.py --config=configs/cifar10.py --workdir=runs/cifar10 [--config.optim.lr=1e-4 ...]
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from absl import flags
from ml_collections import config_flags

from ddpm_jax import data, images, parallel, sampling, training
from ddpm_jax.cli import app
from ddpm_jax.evaluation import monitor
from ddpm_jax.runs import checkpoint, dry_run, experiment, workdir
from ddpm_jax.runs.metric_log import Progress
from ddpm_jax.runtime import compilation_cache, profiling
from ddpm_jax.runtime.signals import Stopped, StopRequest

_CONFIG = config_flags.DEFINE_config_file("config", help_string="The experiment: a file in configs/.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder for all that this run writes.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what the run would be and need (memory, data), and leave.")
app.define_flags()
flags.mark_flags_as_required(["config", "workdir"])


def train(config: ml_collections.ConfigDict, directory: Path) -> int:
    """Trains to the end or until some process is asked to stop; returns the exit code."""
    made = parallel.together(lambda: checked(config))
    if _DRY_RUN.value:
        return rehearse(made, directory)
    compilation_cache.enable()
    source = parallel.together(made.load_data)
    settings = config.train
    optimizer, train_step = make_step(made)
    draw_grid = functools.partial(save_grid, made, parallel.pmap_batches(made.sample), directory)
    if settings.eval_every:
        scores = parallel.on_primary(
            lambda: monitor.make(made, settings.eval_metrics, num_images=settings.eval_samples)
        )

    with StopRequest() as stop, contextlib.ExitStack() as opened:
        saved = parallel.on_primary(lambda: open_checkpoints(config, directory, opened))
        print(f"{len(source)} images of {made.image_shape}, {parallel.describe()}, folder {directory.absolute()}")
        state, start = first_state(made, optimizer, saved)
        train_steps = opened.enter_context(
            profiling.Traced(
                parallel.pmap_train_steps(train_step), steps=profiling.parse(settings.profile), start_step=start,
                directory=parallel.own_folder(directory / workdir.PROFILE),  # JAX names traces by the host
            )
        )  # fmt: skip
        progress = parallel.together(
            lambda: Progress(
                directory if parallel.is_primary() else None, start_step=start, num_steps=settings.num_steps,
                batch_size=settings.batch_size, log_every=settings.log_every,
                learning_rate=training.learning_rate_schedule(config.optim.lr, config.optim.warmup_steps),
            )
        )  # fmt: skip
        opened.enter_context(contextlib.closing(progress))
        step, code, agreed = start, 0, 0
        for step, pixels in dispatches(config, source, start):
            code = int(agreed)  # of the dispatch before: this one keeps the devices busy while the host looks
            state, metrics, agreed = train_steps(state, pixels, stop.exit_code)
            progress.add(step, metrics)
            leaving = bool(code) or step == settings.num_steps
            saving = leaving or step % settings.checkpoint_every == 0
            if saving:
                progress.flush()
            if saved:
                with contextlib.nullcontext() if leaving else noting_failed_saves(stop, settings.on_failed_save):
                    saved.save(state) if saving else saved.check()
            if settings.sample_every and step % settings.sample_every == 0 and not code:
                progress.flush()
                with progress.paused(), contextlib.suppress(Stopped):  # the next dispatch tells all, and saves
                    parallel.on_primary(functools.partial(draw_grid, state.ema_params, step))
            if settings.eval_every and step % settings.eval_every == 0 and not code:
                progress.flush()
                with progress.paused(), contextlib.suppress(Stopped):
                    params = state.ema_params
                    parallel.on_primary(lambda step=step, params=params: progress.note(step, scores(params)))
            if leaving:
                break
        parallel.on_primary(lambda: saved.wait())
    print(f"{'Stopped' if code else 'Finished'} at step {step}, saved in {directory.absolute() / workdir.CHECKPOINTS}.")
    return code


def checked(config: ml_collections.ConfigDict) -> experiment.Experiment:
    """What the config describes.

    Raises:
        ValueError: if it is wrong, or the batch does not fit the devices.
    """
    experiment.check(config)
    settings = config.train
    parallel.check_batch_size("train.batch_size", settings.batch_size, microbatches=settings.microbatches)
    return experiment.make(config)


def make_step(made: experiment.Experiment) -> tuple[optax.GradientTransformation, Callable]:
    """The optimizer, and the train step `(state, pixels) -> state, metrics` of one device."""
    optim = made.config.optim
    optimizer = training.make_optimizer(lr=optim.lr, warmup_steps=optim.warmup_steps, clip_norm=optim.clip_norm)
    return optimizer, functools.partial(
        training.train_step, rng=jax.random.key(made.config.train.seed), process=made.process, model=made.model,
        optimizer=optimizer, ema_decay=optim.ema_decay, ema_warmup=optim.ema_warmup, flip=made.config.data.flip,
        microbatches=made.config.train.microbatches, axis_name=parallel.AXIS,
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


def open_checkpoints(
    config: ml_collections.ConfigDict, directory: Path, opened: contextlib.ExitStack
) -> checkpoint.Checkpoints:
    """Takes the work folder for this run alone, until `opened` is closed."""
    opened.enter_context(workdir.locked(directory))
    workdir.claim(directory, config)
    saved = checkpoint.Checkpoints(
        directory / workdir.CHECKPOINTS, keep=config.train.keep, keep_period=config.train.keep_period
    )
    return opened.enter_context(contextlib.closing(saved))


def first_state(
    made: experiment.Experiment, optimizer: optax.GradientTransformation, saved: checkpoint.Checkpoints | None
) -> tuple[training.TrainState, int]:
    """The newest checkpoint of process 0, or else a fresh start; replicated, with the steps made so far."""
    create = creator(made, optimizer)
    like = checkpoint.abstract(jax.eval_shape(create), parallel.replicated())
    restored = parallel.on_primary(lambda: saved.restore(like))
    state = parallel.replicate(parallel.from_primary(restored or create()))
    start = int(state.step)
    print(f"Continuing from step {start} in {saved.directory}." if restored else "Starting from scratch.")
    return state, start


@contextlib.contextmanager
def noting_failed_saves(stop: StopRequest, on_failed_save: str) -> Iterator[None]:
    """Says that a checkpoint was not written, and goes on, or asks for an orderly end."""
    try:
        yield
    except checkpoint.SaveError as error:
        stopping = on_failed_save == "stop"
        then = "Stopping" if stopping else "Training goes on to the next save"
        print(f"train.py: {error} {then}; the checkpoints before it are as they were.", file=sys.stderr)
        if stopping:
            stop.ask(1)


def dispatches(config: ml_collections.ConfigDict, source: data.Source, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """The step that each dispatch ends with, and this process's images of it [K, b, H, W, C] uint8."""
    settings = config.train
    group = settings.steps_per_dispatch
    if start % group:
        raise ValueError(f"train.steps_per_dispatch={group} must divide the {start} steps made before; try 1.")
    rows = parallel.local_rows(settings.batch_size)
    batches = data.batches(source, seed=settings.seed, batch_size=settings.batch_size, start_step=start, rows=rows)
    for step in range(start + group, settings.num_steps + 1, group):
        yield step, np.stack([next(batches).images for _ in range(group)])
    batches.close()


def save_grid(made: experiment.Experiment, draw: Callable, directory: Path, params: Any, step: int) -> None:
    """Draws samples from averaged weights into samples/step_<step>.png."""
    settings = made.config.sample
    drawn = [
        np.asarray(images.to_uint8(draw(params, sampling.image_keys(settings.seed, indices))))
        for indices in np.array_split(np.arange(settings.num_samples), -(-settings.num_samples // settings.batch_size))
    ]
    path = directory / workdir.SAMPLES / f"step_{step:08d}.png"
    images.save_png(path, images.grid(np.concatenate(drawn)))
    print(f"Samples of step {step}: {path}")


def main() -> int:
    """Trains as the flags say; a run that went astray is pointed to its last good checkpoint."""
    directory = Path(_WORKDIR.value)
    try:
        return train(_CONFIG.value, directory)
    except training.NonFiniteError as error:
        kept = sorted((directory / workdir.CHECKPOINTS).glob("[0-9]*"), key=lambda path: int(path.name))
        print(
            f"{error}. The last good checkpoint is {kept[-1] if kept else 'none: it came too early'}.", file=sys.stderr
        )
        return 1


if __name__ == "__main__":
    app.run(main)
