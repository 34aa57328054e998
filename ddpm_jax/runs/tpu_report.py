"""Says what the programs of an experiment need on a TPU that is not here, by that TPU's own compiler."""

import math
import re
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from ddpm_jax import parallel
from ddpm_jax.runs import config, dry_run, hlo_text
from ddpm_jax.runs.dry_run import size_of
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runtime import compilation

_SIZE = re.compile(r"(\d[\d.]*)([KMGT])\b")
_ENOUGH = 8  # images on a chip at a time: below, libtpu 0.0.42 converts space to batch around convolutions

TRAIN_STEP, SAMPLER = "The train step", "The sampler"


class DoesNotFit(NamedTuple):
    """A program that the TPU's compiler refuses, as it needs more memory than a chip has."""

    message: str
    arguments: int  # bytes
    seconds: float

    @property
    def excess(self) -> float | None:
        """Returns how many times the memory that its arguments leave is asked for; None: it was not said."""
        sizes = [float(number) * 1024 ** (1 + "KMGT".index(unit)) for number, unit in _SIZE.findall(self.message)]
        return sizes[0] / (sizes[1] - self.arguments) if len(sizes) > 1 and sizes[1] > self.arguments else None


class Compiled(NamedTuple):
    """What a compiled program needs on each chip: of one pass through each of its loops."""

    memory: int  # bytes, at the peak, of arguments and program too; the compiler's sum of temporaries is not it
    arguments: int
    program: int
    flops: float
    bytes_accessed: float  # of all operands and results, also of those that stay in the chip
    hbm_bytes: int  # of them, those that are in the memory beside it: see `hlo_text.hbm_bytes`
    collectives: dict[str, list[int]]  # kind -> bytes of each
    seconds: float  # that the compiler took

    def least_seconds(self, chip: parallel.Chip) -> tuple[float, float]:
        """Returns the roofline of a chip: the seconds that the operations take, and those that the bytes take."""
        return self.flops / chip.flops, self.hbm_bytes / chip.bandwidth


def compiled(lowered: jax.stages.Lowered) -> Compiled | DoesNotFit:
    """Compiles a program that was lowered for the devices of `parallel.tpu_devices`."""
    begin = time.perf_counter()
    try:
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        arguments = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(lowered.in_avals))
        return DoesNotFit(str(error).splitlines()[0], arguments, time.perf_counter() - begin)
    memory, work, text = program.memory_analysis(), program.cost_analysis(), program.as_text()
    return Compiled(
        memory=memory.peak_memory_in_bytes,
        arguments=memory.argument_size_in_bytes, program=memory.generated_code_size_in_bytes,
        flops=work["flops"], bytes_accessed=work["bytes accessed"], hbm_bytes=hlo_text.hbm_bytes(text),
        collectives=hlo_text.collectives(text), seconds=time.perf_counter() - begin,
    )  # fmt: skip


def report(experiment: Experiment, target: str, programs: Mapping[str, Callable[[], jax.stages.Lowered]]) -> bool:
    """Prints what programs need on a TPU, and whether they fit, also where the data set cannot be opened.

    Args:
        experiment: that they are of.
        target: see `parallel.tpu_devices`.
        programs: `TRAIN_STEP` and `SAMPLER`, each to be lowered.

    Returns:
        Whether all fit.

    Raises:
        ValueError: at the end, of the data set: see `Experiment.load_data`.
        OSError: likewise.
    """
    settings, devices = experiment.config, parallel.tpu_devices(target)
    n, hosts = len(devices), len({device.process_index for device in devices})
    print(f"Config: {config.to_json(settings)}", end="")
    print(f"Target: {target}, {n} chips ({devices[0].device_kind}) on {hosts} {'host' if hosts == 1 else 'hosts'}.")
    print(f"Network: {sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params)):,} parameters.")
    print(f"Batch: {settings.train.batch_size} images, {settings.train.batch_size // n} on each chip.")
    problem, fits = dry_run.report_data(experiment), True
    for name, lower in programs.items():
        with compilation.announcing(f"{name} for {target}"):
            needed = compiled(lower())
        if isinstance(needed, DoesNotFit):
            fits = False
            print(f"{name}: THIS DOES NOT FIT. {needed.message}\n{_advice(name, experiment, n, needed.excess)}")
        else:
            print(f"{name}: {_describe(needed, parallel.chip(target))}\n{_rate(name, experiment, n, needed, target)}")
            if (images := _at_a_time(name, experiment, n)) < _ENOUGH:
                print(
                    f"{images} images on a chip at a time: compare with {_ENOUGH}, as fewer may move more bytes in all."
                )
    print("Nothing was run, and nothing written.", flush=True)
    if problem is not None:
        raise problem
    return fits


def _describe(needed: Compiled, chip: parallel.Chip) -> str:
    exchanged = [
        f"{len(sizes)} {kind} of {size_of(sum(sizes))} in all" for kind, sizes in sorted(needed.collectives.items())
    ]
    return (
        f"compiled in {needed.seconds:.0f} s. It fits: {size_of(needed.memory)} of {size_of(chip.memory)} on each "
        f"chip, {size_of(needed.arguments)} of arguments and {size_of(needed.program)} of program among them.\n"
        f"Work of a chip: {needed.flops:.3g} floating-point operations; {needed.bytes_accessed:.3g} bytes accessed, of "
        f"which at most {needed.hbm_bytes:.3g} in the memory beside it. Collectives: {', '.join(exchanged) or 'none'}."
    )


def _rate(name: str, experiment: Experiment, num_chips: int, needed: Compiled, target: str) -> str:
    """Says what the roofline allows. XLA counts the body of a loop once, whose length it may not know."""
    settings = experiment.config
    computing, moving = needed.least_seconds(parallel.chip(target))
    times = (
        f"{1e3 * computing:.3g} ms for the operations at the chip's peak in bfloat16, {1e3 * moving:.3g} ms for the "
        "bytes in the memory beside it"
    )
    if name == TRAIN_STEP and settings.train.microbatches > 1:
        return f"Roofline: {times}. Counted is one of {settings.train.microbatches} microbatches, and the update."
    rate = 1 / max(computing, moving)
    if name == TRAIN_STEP:
        return f"Roofline: {times}: {rate:.3g} steps/s, {rate * settings.train.batch_size:.3g} images/s on the slice."
    images = _at_a_time(name, experiment, num_chips) * num_chips
    num_steps = experiment.sampler().num_steps
    return (
        f"Roofline, of one of {num_steps} steps: {times}: {rate * images / num_steps:.3g} images/s on the slice, "
        f"{images} at a time."
    )


def _at_a_time(name: str, experiment: Experiment, num_chips: int) -> int:
    """Returns how many images a chip has at a time."""
    settings = experiment.config
    if name == TRAIN_STEP:
        return settings.train.batch_size // num_chips // settings.train.microbatches
    return -(-settings.sample.batch_size // num_chips)


def _advice(name: str, experiment: Experiment, num_chips: int, excess: float | None) -> str:
    """Says what may fit; certain is only what was compiled."""
    settings = experiment.config
    if name != TRAIN_STEP:
        return "Try a smaller sample.batch_size."
    on_chip, now = settings.train.batch_size // num_chips, settings.train.microbatches
    enough = [m for m in range(now + 1, on_chip + 1) if on_chip % m == 0 and excess and m >= now * excess]
    least = f"train.microbatches={enough[0]}" if enough else "more train.microbatches"
    by = "By proportion, and so not for certain, " if enough else "What may fit: "
    return f"{by}{least} would be enough; or model.remat=True, a smaller train.batch_size, or more chips. Try it so."
