"""Says what a training run would be and need, without running or writing anything."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import ml_collections

from ddpm_jax import parallel
from ddpm_jax.runs import config, memory
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runtime import compilation


class Cost(NamedTuple):
    """The needs of the compiled train step: sizes in bytes, on each device."""

    arguments: int  # the state, and the pixels of a dispatch
    outputs: int  # the next state, and the metrics
    aliased: int  # outputs that take the place of arguments
    temporaries: int
    program: int
    flops: float  # of one step, on each device

    @property
    def memory(self) -> int:
        """Returns the sum of all that is needed at once."""
        return self.arguments + self.outputs - self.aliased + self.temporaries + self.program


def cost(lowered: jax.stages.Lowered) -> Cost:
    """Compiles the train step and reads what it needs.

    The floating-point operations are those of the program before XLA optimizes it, as some backends count none of
    those that they hand to a library. So they are the same on all accelerators; on a CPU they are fewer where
    `winograd` takes the place of convolutions. XLA counts the body of a loop once: they are those of one step of a
    dispatch.
    """
    with compilation.announcing("the train step"):
        analysis = lowered.compile().memory_analysis()
    return Cost(
        arguments=analysis.argument_size_in_bytes,
        outputs=analysis.output_size_in_bytes,
        aliased=analysis.alias_size_in_bytes,
        temporaries=analysis.temp_size_in_bytes,
        program=analysis.generated_code_size_in_bytes,
        flops=lowered.cost_analysis()["flops"],
    )


def report(
    experiment: Experiment,
    lowered: jax.stages.Lowered,
    lower: Callable[[ml_collections.ConfigDict], jax.stages.Lowered],
) -> None:
    """Prints the settings, devices, data and cost of a run, also where the data set cannot be opened.

    `lower` makes the program of other settings: where this one does not fit, it is said what would.

    Raises:
        ValueError: at the end, of the data set: see `Experiment.load_data`.
        OSError: likewise.
    """
    settings = experiment.config.train
    print(f"Config: {config.to_json(experiment.config)}", end="")
    print(f"Devices: {parallel.describe()}.")
    count = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params))
    print(f"Network: {count:,} parameters.")
    print(f"Batch: {settings.batch_size} images, {settings.batch_size // jax.device_count()} on each device.")
    problem = report_data(experiment)
    begin = time.perf_counter()
    needed = cost(lowered)
    print(_describe(needed, num_devices=jax.device_count(), batch_size=settings.batch_size))
    _report_alternatives(experiment, needed, lower)
    print(f"It took {time.perf_counter() - begin:.0f} s to compile. Nothing was run, and nothing written.", flush=True)
    if problem is not None:
        raise problem


def _report_alternatives(
    experiment: Experiment, needed: Cost, lower: Callable[[ml_collections.ConfigDict], jax.stages.Lowered]
) -> None:
    available = memory.available_bytes()
    if available is None or needed.memory <= available:
        return
    found = memory.alternatives(
        experiment.config, lambda settings: cost(lower(settings)).memory, available=available, needed=needed.memory,
        of_width=experiment.own.network is None,
    )  # fmt: skip
    said = [f"{setting} ({size_of(count)})" for setting, count in found]
    print(f"Would fit: {', or '.join(said)}." if said else "No batch, microbatches or width alone would make it fit.")


def report_data(experiment: Experiment) -> Exception | None:
    """Prints what the data set is; returns why it cannot be opened, if so."""
    try:
        source = experiment.load_data()
    except (ValueError, OSError) as error:
        print("Data: cannot be opened; why is said at the end.")
        return error
    workers = experiment.config.data.num_workers
    place = "in memory" if source.in_memory else f"streamed from disk by {workers or 'no'} worker processes"
    print(f"Data: {len(source):,} images of {source.image_shape}, {place}; {len(source.broken)} broken ones met.")
    return None


def _describe(needed: Cost, *, num_devices: int, batch_size: int) -> str:
    available = memory.available_bytes()
    of = f" of {size_of(available)} that JAX may use" if available else ""
    warning = " THIS DOES NOT FIT." if available and needed.memory > available else ""
    flops = needed.flops * num_devices
    return (
        f"Memory: {size_of(needed.memory)}{of} on each device, as compiled for this one:{warning} "
        f"{size_of(needed.arguments)} of arguments, {size_of(needed.outputs)} of outputs ({size_of(needed.aliased)} of "
        f"them in the place of arguments), {size_of(needed.temporaries)} of temporaries, {size_of(needed.program)} of "
        "program. "
        "Not counted: images waiting on their way to the device, what the grids of samples need, and fragments.\n"
        f"Work: {flops:.3g} floating-point operations a step, {flops / batch_size:.3g} an image. Not counted: "
        "transcendental functions, random bits, and what moves data without computing."
    )


def size_of(count: float) -> str:
    """Formats a number of bytes."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
