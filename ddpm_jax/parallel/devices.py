"""The devices: how a state is replicated, a batch is split, and the train step is mapped over them."""

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


def saveable(tree: Any) -> Any:
    """A pytree of replicated arrays as Orbax takes it: of several processes, copies in NumPy.

    An array on the devices of one process alone it takes for a mistake there. They are copies, because on a CPU
    NumPy could look at the very memory that the next step is given for its result.
    """
    return tree if jax.process_count() == 1 else jax.tree.map(np.array, tree)


def check_batch_size(name: str, batch_size: int, *, microbatches: int = 1) -> None:
    """Refuses a batch that the devices cannot share equally, or a device cannot split into its microbatches.

    Raises:
        ValueError: naming the setting and the nearest size that fits.
    """
    devices = jax.device_count()
    n = devices * microbatches
    if batch_size % n:
        parts = f"{devices} devices" if microbatches == 1 else f"{devices} devices x {microbatches} microbatches = {n}"
        raise ValueError(f"{name}={batch_size} must be a multiple of {parts}; try {max(1, round(batch_size / n)) * n}.")


def local_rows(batch_size: int) -> slice:
    """The rows of a global batch that lie on this process's devices: `jax.pmap` orders devices by process."""
    b = batch_size // jax.process_count()
    return slice(jax.process_index() * b, (jax.process_index() + 1) * b)


def pmap_train_steps(train_step: Callable) -> Callable:
    """Maps `train_step(state, pixels) -> state, metrics` over the devices, several steps a dispatch.

    Returns:
        `(state, pixels [K, b, H, W, C], asked=0) -> state, metrics, agreed`, K steps in one scan. `pixels` are this
        process's rows of the batches (`local_rows`); `state` is donated and comes back replicated, as do the metrics,
        [K, ...]. `agreed` is the largest `asked` of all processes, so that all know of what one asks for, at the same
        step and at no cost. K = 1 and larger K give the same bits.
    """

    mapped = _map_steps(train_step)

    def split_and_run(state: Any, pixels: np.ndarray, asked: int = 0) -> tuple[Any, Any, jax.Array]:
        k, b, *image = pixels.shape
        n = jax.local_device_count()
        results = mapped(state, pixels.reshape(k, n, b // n, *image), np.full(n, asked, np.int32))
        wait_on_cpu(results[1])
        return results

    return split_and_run


def lower_train_steps(train_step: Callable, state: Any, *, shape: tuple[int, ...]) -> jax.stages.Lowered:
    """The program that `pmap_train_steps` runs, neither compiled nor run.

    Args:
        train_step: as there.
        state: its abstract form, with the sharding `replicated`.
        shape: [K, B, H, W, C] of the pixels, B global.
    """
    k, b, *image = shape
    n = jax.local_device_count()
    pixels = jax.ShapeDtypeStruct((k, n, b // jax.device_count(), *image), np.uint8)
    return _map_steps(train_step).lower(state, pixels, jax.ShapeDtypeStruct((n,), np.int32))


def _map_steps(train_step: Callable) -> Callable:
    def steps(state: Any, pixels: jax.Array, asked: jax.Array) -> tuple[Any, Any, jax.Array]:
        state, metrics = jax.lax.scan(train_step, state, pixels)
        return state, metrics, jax.lax.pmax(asked, AXIS)

    return jax.pmap(steps, axis_name=AXIS, in_axes=(None, 1, 0), out_axes=(None, None, None), donate_argnums=0)


def wait_on_cpu(result: Any) -> None:
    """On a CPU, until a result is there: XLA's collectives share one thread pool, so that two programs in flight can
    wait for each other for ever.
    """
    if jax.device_count() > 1 and jax.default_backend() == "cpu":
        jax.block_until_ready(result)
