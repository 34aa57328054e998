"""Training as a run on disk: the loop over dispatches, with checkpoints, logs, grids of samples and scores.

Every process runs this loop alike. Process 0 alone writes into the work folder.
"""

import contextlib
import functools
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from ddpm_jax import data, parallel, sampling, timesteps, training, unet
from ddpm_jax.ops import convolution
from ddpm_jax.runs import checkpoint, config, initial_weights, periodic, trained_with, workdir
from ddpm_jax.runs.experiment import Experiment, make_experiment
from ddpm_jax.runs.metric_log import MetricLog
from ddpm_jax.runs.own import Own
from ddpm_jax.runs.writers import JsonLines, TensorBoard
from ddpm_jax.runtime import profiling, program
from ddpm_jax.runtime.signals import Stopped, StopRequest


class Outcome(NamedTuple):
    """How training ended: the last step, and the exit code, 0 or 128 + the number of the signal that stopped it."""

    step: int
    exit_code: int


def train(
    settings: ml_collections.ConfigDict,
    directory: Path,
    *,
    prepare_evaluation: Callable[[Experiment], periodic.EvaluateFn] | None = None,
    init_from: initial_weights.Origin | None = None,
    own: Own | None = None,
) -> Outcome:
    """Trains to the end, or until some process is asked to stop; continues the run that the folder holds.

    With several processes all call it alike.

    Args:
        settings: of the experiment, from an experiment's `get_config`.
        directory: the work folder.
        prepare_evaluation: called once before training begins, so that all that can go wrong does so early; its result
            is called every `train.eval_every` steps. `evaluation.prepare` measures `train.eval_metrics`.
        init_from: the run whose weights a new one starts from; None: it starts from scratch.
        own: the network and the data that take the place of those of the settings, and a further log.

    Raises:
        ValueError: if the settings, the work folder or the data are wrong, or a process has others than process 0.
        OSError: if the data or the work folder cannot be read, or the last checkpoint not be written.
        training.NonFiniteError: if the loss or the gradient norm of a step is not finite.
    """
    directory = Path(directory)
    given = [facts for each in (init_from, own) if each for facts in each.facts().items()]
    parallel.check_same(lambda: program.facts() | config.facts(settings) | dict(given))
    experiment = parallel.raise_on_all(lambda: checked_experiment(settings, own))
    initial = initial_weights.read(experiment, directory, init_from)
    source = parallel.raise_on_all(experiment.load_data)
    parallel.check_same(source.fingerprint)
    optimizer, train_step = make_step(experiment)
    events = periodic.events(experiment, directory, prepare_evaluation)
    with StopRequest() as stop, contextlib.ExitStack() as stack:
        checkpoints = parallel.raise_on_all(lambda: _open_checkpoints(settings, directory, stack, source, initial))
        print(f"{len(source)} images of {experiment.image_shape}, {parallel.describe()}, folder {directory.absolute()}")
        state, start = initial_weights.first_state(make_init(experiment, optimizer), checkpoints, initial)
        if start < settings.train.num_steps:
            parallel.raise_on_all(lambda: checkpoints and trained_with.note(directory, start))
        train_steps = stack.enter_context(
            profiling.Traced(
                parallel.pmap_train_steps(train_step), steps=profiling.parse(settings.train.profile),
                start_step=start,
                directory=parallel.own_folder(directory / workdir.PROFILE),  # JAX names traces by the host
            )
        )  # fmt: skip
        log = stack.enter_context(contextlib.closing(_open_log(experiment, directory, start)))
        step, code, agreed_code = start, 0, 0
        for step, batch in dispatches(settings, source, start):
            code = int(agreed_code)  # of the dispatch before: this one keeps the devices busy while the host waits
            state, metrics, agreed_code = train_steps(state, batch, stop.exit_code)
            log.add(step, metrics)
            leaving = bool(code) or step == settings.train.num_steps
            _save(checkpoints, log, state, step, settings=settings.train, stop=stop, leaving=leaving)
            for every, act in events:
                if every and step % every == 0 and not code:
                    log.flush()
                    with log.paused(), contextlib.suppress(Stopped):  # the next dispatch tells all, and saves
                        act(log, state, step)
            if leaving:
                break
        parallel.raise_on_all(lambda: checkpoints and checkpoints.wait())
    print(f"{'Stopped' if code else 'Finished'} at step {step}, saved in {directory.absolute() / workdir.CHECKPOINTS}.")
    return Outcome(step, code)


def checked_experiment(
    settings: ml_collections.ConfigDict, own: Own | None = None, *, num_devices: int | None = None
) -> Experiment:
    """Builds the experiment that the settings describe, for so many devices; None: those of this run.

    Raises:
        ValueError: if they are wrong, or the batch does not fit the devices.
    """
    config.check(settings)
    parallel.check_batch_size(
        "train.batch_size", settings.train.batch_size, microbatches=settings.train.microbatches,
        num_devices=num_devices,
    )  # fmt: skip
    return make_experiment(settings, own)


def make_step(experiment: Experiment) -> tuple[optax.GradientTransformation, Callable]:
    """Makes the optimizer, and the train step `(state, batch) -> state, metrics` of one device."""
    settings = experiment.config
    optim, model = settings.optim, experiment.model
    if isinstance(model, unet.UNet):
        model = model.clone(conv=convolution.conv_for_training)
    optimizer = training.make_optimizer(lr=optim.lr, warmup_steps=optim.warmup_steps, clip_norm=optim.clip_norm)
    return optimizer, functools.partial(
        training.train_step, rng=_run_key(experiment), process=experiment.process,
        model=model, optimizer=optimizer,
        loss_type=settings.diffusion.loss_type, ema_decay=optim.ema_decay, ema_warmup=optim.ema_warmup,
        flip=settings.data.flip, microbatches=settings.train.microbatches, axis_name=parallel.AXIS,
        timestep_sampler=_timestep_sampler(experiment), loss_weighting=settings.diffusion.loss_weighting,
        condition_fn=experiment.condition_fn, label_dropout=settings.train.label_dropout,
    )  # fmt: skip


def _timestep_sampler(experiment: Experiment) -> timesteps.TimestepSampler:
    settings = experiment.config.train
    return timesteps.make_sampler(
        settings.timesteps, num_timesteps=experiment.process.num_timesteps, batch_size=settings.batch_size
    )


def _run_key(experiment: Experiment) -> jax.Array:
    settings = experiment.config.train
    return sampling.run_key(settings.seed, prng_impl=settings.prng_impl)


def make_init(experiment: Experiment, optimizer: optax.GradientTransformation) -> Callable[[], training.TrainState]:
    """Makes the function that returns the state of a fresh start."""
    return functools.partial(
        training.create_state, experiment.model, optimizer, rng=_run_key(experiment),
        image_shape=experiment.image_shape, timestep_sampler=_timestep_sampler(experiment),
        cond_dim=experiment.config.model.num_classes, averages=experiment.config.optim.averages,
    )  # fmt: skip


def abstract_batch(experiment: Experiment) -> data.Batch:
    """Returns the shapes of the global batches of a whole dispatch: [K, B, ...]."""
    settings = experiment.config.train
    shape = (_next_end(settings, 0), settings.batch_size)
    return data.Batch(
        jax.ShapeDtypeStruct((*shape, *experiment.image_shape), np.uint8), jax.ShapeDtypeStruct(shape, np.int32)
    )


def lower(experiment: Experiment, devices: Sequence[jax.Device] | None = None) -> jax.stages.Lowered:
    """Lowers the program of a dispatch, from shapes alone; for devices of another machine, or those of this run."""
    optimizer, train_step = make_step(experiment)
    state = jax.eval_shape(make_init(experiment, optimizer))
    if devices is None:
        state = checkpoint.abstract(state, parallel.replicated())
    return parallel.lower_train_steps(train_step, state, abstract_batch(experiment), devices=devices)


def dispatches(
    settings: ml_collections.ConfigDict, source: data.Source, start: int
) -> Iterator[tuple[int, data.Batch]]:
    """Yields the step that each dispatch ends with, and this process's rows of its batches, [K, b, ...].

    A dispatch makes `train.steps_per_dispatch` steps, or fewer where something is due: a report, a checkpoint, ...
    """
    step, rows = start, parallel.local_rows(settings.train.batch_size)
    batches = data.batches(
        source, seed=settings.train.seed, batch_size=settings.train.batch_size, start_step=start, rows=rows,
        num_workers=settings.data.num_workers,
    )  # fmt: skip
    with contextlib.closing(batches):
        while step < settings.train.num_steps:
            end = _next_end(settings.train, step)
            yield end, data.Batch(*map(np.stack, zip(*itertools.islice(batches, end - step), strict=True)))
            step = end


def _next_end(settings: ml_collections.ConfigDict, step: int) -> int:
    """Returns the step that the dispatch after `step` ends with."""
    periods = (settings.log_every, settings.checkpoint_every, settings.sample_every, settings.eval_every)
    due = [(step // every + 1) * every for every in periods if every]
    return min(step + settings.steps_per_dispatch, settings.num_steps, *due)


def _open_checkpoints(
    settings: ml_collections.ConfigDict, directory: Path, stack: contextlib.ExitStack, source: data.Source,
    initial: initial_weights.InitialWeights | None,
) -> checkpoint.Checkpoints | None:  # fmt: skip
    """Takes the work folder for this run alone, until `stack` is closed; None on all processes but 0."""
    if not parallel.is_primary():
        return None
    stack.enter_context(workdir.locked(directory))
    workdir.write_config(directory, settings, fingerprint=source.fingerprint())
    initial_weights.write(directory, initial)
    checkpoints = checkpoint.Checkpoints(
        directory / workdir.CHECKPOINTS, keep=settings.train.keep, keep_period=settings.train.keep_period
    )
    return stack.enter_context(contextlib.closing(checkpoints))


def _open_log(experiment: Experiment, directory: Path, start: int) -> MetricLog:
    """Opens the log; process 0 alone writes it."""
    settings, open_own = experiment.config, experiment.own.open_writer
    open_writers = (JsonLines, TensorBoard, *([open_own] if open_own else [])) if parallel.is_primary() else ()
    return parallel.raise_on_all(
        lambda: MetricLog(
            [open_writer(directory, start) for open_writer in open_writers], num_steps=settings.train.num_steps,
            batch_size=settings.train.batch_size, log_every=settings.train.log_every,
            learning_rate=training.learning_rate_schedule(settings.optim.lr, settings.optim.warmup_steps),
        )
    )  # fmt: skip


def _save(
    checkpoints: checkpoint.Checkpoints | None,
    log: MetricLog,
    state: training.TrainState,
    step: int,
    *,
    settings: ml_collections.ConfigDict,
    stop: StopRequest,
    leaving: bool,
) -> None:
    """Saves the state where a checkpoint is due; a failed save is reported, and on leaving raised on all processes."""
    if leaving:
        log.flush()
        parallel.raise_on_all(lambda: checkpoints and checkpoints.save(state))
    elif step % settings.checkpoint_every == 0:
        log.flush()
        if checkpoints:
            with _reporting_failed_saves(stop, settings.on_failed_save):
                checkpoints.save(state)
    elif checkpoints:
        with _reporting_failed_saves(stop, settings.on_failed_save):
            checkpoints.check()


@contextlib.contextmanager
def _reporting_failed_saves(stop: StopRequest, on_failed_save: str) -> Iterator[None]:
    """Reports that a checkpoint was not written, and goes on, or requests an orderly end."""
    try:
        yield
    except checkpoint.SaveError as error:
        stopping = on_failed_save == "stop"
        then = "Stopping" if stopping else "Training goes on to the next save"
        print(f"{error} {then}; the checkpoints before it are as they were.", file=sys.stderr)
        if stopping:
            stop.request(1)
