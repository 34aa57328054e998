"""Devices: how a state is replicated, a batch is split, and a function is mapped over them.

The one file that names meshes, devices and processes. `jax.pmap` is used as it is today, a `jit` of a `shard_map`:
the state goes in and comes out whole and replicated, with no leading device axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def describe() -> str:
    """The devices, for people: '4 TPU v4 in 1 process'."""
    devices, processes = jax.devices(), jax.process_count()
    kind = devices[0].device_kind
    return f"{len(devices)} {kind} in {processes} {'process' if processes == 1 else 'processes'}"


def replicated() -> NamedSharding:
    """The sharding of what lies whole on every local device."""
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec())


def replicate(tree: Any) -> Any:
    """Copies a pytree of arrays to every local device, as the mapped functions below want it."""
    return jax.device_put(tree, replicated())


def check_batch_size(name: str, batch_size: int) -> None:
    """Refuses a batch that the devices cannot share equally.

    Raises:
        ValueError: naming the setting and the nearest size that fits.
    """
    n = jax.device_count()
    if batch_size % n:
        raise ValueError(
            f"{name}={batch_size} must be a multiple of {n} devices; try {max(1, round(batch_size / n)) * n}."
        )


def pmap_train_steps(train_step: Callable) -> Callable:
    """Maps `train_step(state, pixels) -> state, metrics` over the devices, several steps a dispatch.

    Returns:
        `(state, pixels [K, B, H, W, C]) -> state, metrics`, K steps in one scan; `state` is donated and comes back
        replicated, as do the metrics, [K, ...]. K = 1 and larger K give the same bits.
    """

    mapped = _map_steps(train_step)

    def split_and_run(state: Any, pixels: np.ndarray) -> tuple[Any, Any]:
        k, b, *image = pixels.shape
        n = jax.local_device_count()
        state, metrics = mapped(state, pixels.reshape(k, n, b // n, *image))
        if n > 1 and jax.default_backend() == "cpu":
            # XLA's CPU collectives share one thread pool: two steps in flight can wait for each other for ever.
            jax.block_until_ready(metrics)
        return state, metrics

    return split_and_run


def lower_train_steps(train_step: Callable, state: Any, *, shape: tuple[int, ...]) -> jax.stages.Lowered:
    """The program that `pmap_train_steps` runs, neither compiled nor run.

    Args:
        train_step: as there.
        state: its abstract form, with the sharding `replicated`.
        shape: [K, B, H, W, C] of the pixels, B global.
    """
    k, b, *image = shape
    local = (k, jax.local_device_count(), b // jax.device_count(), *image)
    return _map_steps(train_step).lower(state, jax.ShapeDtypeStruct(local, np.uint8))


def _map_steps(train_step: Callable) -> Callable:
    def steps(state: Any, pixels: jax.Array) -> tuple[Any, Any]:
        return jax.lax.scan(train_step, state, pixels)

    return jax.pmap(steps, axis_name=AXIS, in_axes=(None, 1), out_axes=(None, None), donate_argnums=0)


def pmap_batches(function: Callable) -> Callable:
    """Spreads `function(params, *arrays [B, ...]) -> pytree of [B, ...]` over the local devices.

    Returns:
        The same function for replicated `params` and any B: a batch that the devices cannot share equally is
        filled up with copies of its last row, which are dropped from the result.
    """
    mapped = jax.pmap(lambda params, arrays: function(params, *arrays), axis_name=AXIS, in_axes=(None, 0))

    def pad_and_run(params: Any, *arrays: Any) -> Any:
        b, n = len(arrays[0]), jax.local_device_count()
        rows = np.minimum(np.arange(-(-b // n) * n), b - 1)
        split = tuple(array[rows].reshape(n, len(rows) // n, *array.shape[1:]) for array in arrays)
        result = mapped(params, split)  # each [n, b / n, ...]
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:b], result)

    return pad_and_run
