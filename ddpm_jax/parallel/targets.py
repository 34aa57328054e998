"""TPUs that are not here: their devices, for which libtpu compiles on any machine, and what their chips can do."""

import importlib.util
import math
import os
import re
from typing import NamedTuple

import jax
from jax.experimental import topologies

# Without these libtpu asks the metadata server of a Cloud TPU which machine it is on. No device is opened.
_NOT_ON_A_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else one process at a time, which no device here asks for
}
_FLAT = ("v5e", "v6e")  # slices of two directions, not three
_LARGEST_HOST = 8  # chips of those in one machine, where there is only one


class Chip(NamedTuple):
    """A chip's published limits."""

    flops: float  # a second, of products in bfloat16 (as those of float32 are by default)
    bandwidth: float  # bytes a second, of the memory beside the chip
    memory: float  # bytes


# cloud.google.com/tpu/docs/ v4, v5e, v5p and v6e: "key chip specifications".
CHIPS = {
    "v4": Chip(flops=275e12, bandwidth=1228e9, memory=32 * 2**30),
    "v5e": Chip(flops=197e12, bandwidth=819e9, memory=16 * 2**30),
    "v5p": Chip(flops=459e12, bandwidth=2765e9, memory=95 * 2**30),
    "v6e": Chip(flops=918e12, bandwidth=1640e9, memory=32 * 2**30),
}


def chip(target: str) -> Chip:
    """Returns the limits of a chip of `target`, such as 'v5e:2x4'.

    Raises:
        ValueError: if it is none of `CHIPS`, or not so many directions.
    """
    kind, _, shape = target.partition(":")
    sides = 2 if kind in _FLAT else 3
    if kind not in CHIPS or not re.fullmatch("x".join([r"[1-9]\d*"] * sides), shape):  # libtpu may abort the process
        raise ValueError(
            f"target={target!r}: must be one of {', '.join(CHIPS)} and the chips in each direction, of which v5e and "
            "v6e have two and the others three: v5e:2x4, v4:2x2x4."
        )
    return CHIPS[kind]


def tpu_devices(target: str) -> list[jax.Device]:
    """Returns the devices of a TPU slice that programs can be compiled for, but not run on: one for each chip.

    Args:
        target: the kind of chip and how many there are in each direction: 'v5e:2x4', 'v4:2x2x4'.

    Raises:
        ValueError: if there is no such TPU, or libtpu is missing.
    """
    chip(target)
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError(
            f"target={target!r} needs the TPU's compiler, which is not installed: pip install 'ddpm-jax[tpu-compiler]'."
        )
    for name, value in _NOT_ON_A_TPU.items():
        os.environ.setdefault(name, value)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=target, **_options(target)).devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"target={target!r} is no TPU: {str(error).splitlines()[0]}") from error


def _options(target: str) -> dict:
    kind, _, shape = target.partition(":")
    if kind == "v4":
        return dict(chip_config_name="megacore")  # its two cores as one device, as on Cloud TPU
    sides = tuple(map(int, shape.split("x")))
    if kind in _FLAT and math.prod(sides) <= _LARGEST_HOST:
        return dict(chips_per_host_bounds=(*sides, 1))
    return {}
