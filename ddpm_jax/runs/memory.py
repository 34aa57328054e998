"""Which batch, microbatches or width a machine has the memory for, where those of the settings need more."""

import os
from collections.abc import Callable, Iterator

import jax
import ml_collections

from ddpm_jax.unet import GROUPS


def available_bytes() -> int | None:
    """Returns what a device may use: of the machine's memory, its share, where devices are the CPU; None: unknown."""
    device = jax.local_devices()[0]
    if limit := (device.memory_stats() or {}).get("bytes_limit"):
        return limit
    if getattr(device, "platform", "") != "cpu" or not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()


def alternatives(
    settings: ml_collections.ConfigDict,
    memory_of: Callable[[ml_collections.ConfigDict], int],
    *,
    available: int,
    needed: int,
    of_width: bool = True,
) -> Iterator[tuple[str, int]]:
    """Finds, for each of the three settings alone, the mildest change by powers of two that fits.

    Args:
        settings: that do not fit.
        memory_of: compiles the train step with other settings, and returns the bytes that it needs on each device.
        available: bytes on each device.
        needed: bytes with `settings`, which guide the search: memory is taken to fall with the setting at best.
        of_width: whether model.ch is one of the three: not of a network of one's own.

    Yields:
        The setting as on a command line, and its bytes; for a setting that alone is not enough nothing.
    """
    for name, values in _candidates(settings).items():
        if name == "model.ch" and not of_width:
            continue
        section, field = name.split(".")
        at_best = {value: needed * _share(name, value, settings) for value in values}
        for value in (value for value in values if at_best[value] <= available):
            changed = ml_collections.ConfigDict(settings.to_dict())
            changed[section][field] = value
            if (memory := memory_of(changed.lock())) <= available:
                yield f"--config.{name}={value}", memory
                break


def _candidates(settings: ml_collections.ConfigDict) -> dict[str, list[int]]:
    """Lists the values that are tried, the mildest first."""
    batch, parts, devices = settings.train.batch_size, settings.train.microbatches, jax.device_count()
    per_device = batch // devices
    powers = [2**i for i in range(1, 21)]
    return {
        "train.batch_size": [batch // n for n in powers if per_device % n == 0 and per_device // n % parts == 0],
        "train.microbatches": [parts * n for n in powers if per_device % (parts * n) == 0],
        "model.ch": [settings.model.ch // n for n in powers if settings.model.ch % (n * GROUPS) == 0],
    }


def _share(name: str, value: int, settings: ml_collections.ConfigDict) -> float:
    """Returns the least share of the memory that is left: the weights grow with the square of the width."""
    if name == "model.ch":
        return (value / settings.model.ch) ** 2
    before = settings.train[name.removeprefix("train.")]
    return min(value, before) / max(value, before)
