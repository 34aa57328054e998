"""The devices: how a state is replicated, a batch is split, and work is mapped over them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddpm_jax.runtime import signals

AXIS = "batch"


def describe() -> str:
    """Describes the devices: '4 TPU v4 in 1 process'."""
    devices, processes = jax.devices(), jax.process_count()
    kind = devices[0].device_kind
    return f"{len(devices)} {kind} in {processes} {'process' if processes == 1 else 'processes'}"


def replicated() -> NamedSharding:
    """Returns the sharding of arrays that lie whole on every local device."""
    return NamedSharding(Mesh(np.asarray(jax.local_devices()), (AXIS,)), PartitionSpec())


def replicate(tree: Any) -> Any:
    """Copies a pytree of arrays to every local device, as the mapped functions below want it."""
    return jax.device_put(tree, replicated())


def saveable(tree: Any) -> Any:
    """Returns replicated arrays in the form that Orbax saves: with several processes, as copies in NumPy.

    There Orbax refuses arrays that lie on the devices of one process alone. They are copies, because on a CPU NumPy
    could look at the very memory that the next step writes its result to.
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
    """Returns the rows of a global batch that lie on this process's devices: `jax.pmap` orders devices by process."""
    b = batch_size // jax.process_count()
    return slice(jax.process_index() * b, (jax.process_index() + 1) * b)


def pmap_train_steps(train_step: Callable) -> Callable:
    """Maps `train_step(state, batch) -> state, metrics` over the devices, several steps a dispatch.

    Returns:
        `(state, batch, stop_code=0) -> state, metrics, agreed_code`, K steps in one scan. `batch` is a pytree of
        arrays [K, b, ...], this process's rows of the global batches (`local_rows`); `state` is donated and comes back
        replicated, as do the metrics, [K, ...]. `agreed_code` is the largest `stop_code` of all processes, so that all
        learn at the same step, and at no cost, that one was asked to stop. K = 1 and larger K give the same bits.
    """
    mapped = _map_steps(train_step)

    def split_and_run(state: Any, batch: Any, stop_code: int = 0) -> tuple[Any, Any, jax.Array]:
        n = jax.local_device_count()
        split = jax.tree.map(lambda x: x.reshape(x.shape[0], n, -1, *x.shape[2:]), batch)  # [K, n, b / n, ...]
        results = mapped(state, split, np.full(n, stop_code, np.int32))
        _wait_on_cpu(results[1])
        return results

    return split_and_run


def lower_train_steps(train_step: Callable, state: Any, batch: Any) -> jax.stages.Lowered:
    """Lowers the program that `pmap_train_steps` runs; it is neither compiled nor run.

    Args:
        train_step: as there.
        state: its abstract form, with the sharding `replicated`.
        batch: the abstract global batch, a pytree of [K, B, ...].
    """
    n = jax.local_device_count()

    def split(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        k, b, *rest = x.shape
        return jax.ShapeDtypeStruct((k, n, b // jax.device_count(), *rest), x.dtype)

    return _map_steps(train_step).lower(state, jax.tree.map(split, batch), jax.ShapeDtypeStruct((n,), np.int32))


def _map_steps(train_step: Callable) -> Callable:
    def steps(state: Any, batch: Any, stop_code: jax.Array) -> tuple[Any, Any, jax.Array]:
        state, metrics = jax.lax.scan(train_step, state, batch)
        return state, metrics, jax.lax.pmax(stop_code, AXIS)

    return jax.pmap(steps, axis_name=AXIS, in_axes=(None, 1, 0), out_axes=(None, None, None), donate_argnums=0)


def map_batches(function: Callable) -> Callable:
    """Maps `function(shared, *arrays [B, ...]) -> pytree of [B, ...]` over the devices of all processes.

    Returns:
        The same function, which every process calls alike: with `shared` replicated (`replicate`) and all rows of the
        batch, any B. It returns all rows everywhere, as NumPy arrays. A batch that the devices cannot share equally is
        filled up with copies of its last row, which are dropped from the result. A stop that one process was asked
        for travels with the batch: the next call raises signals.Stopped on all.
    """

    def run_on_device(shared: Any, arrays: tuple, stop_code: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.all_gather(function(shared, *arrays), AXIS), jax.lax.pmax(stop_code, AXIS)

    mapped = jax.pmap(run_on_device, axis_name=AXIS, in_axes=(None, 0, 0), out_axes=(None, None))

    def pad_and_run(shared: Any, *arrays: Any) -> Any:
        signals.check()
        b, n, n_local = len(arrays[0]), jax.device_count(), jax.local_device_count()
        padded = -(-b // n) * n
        rows = np.minimum(np.arange(padded), b - 1)[local_rows(padded)]
        local = tuple(array[rows].reshape(n_local, -1, *array.shape[1:]) for array in arrays)
        result, agreed_code = mapped(shared, local, np.full(n_local, signals.stop_code(), np.int32))
        _wait_on_cpu(result)
        signals.receive_stop_code(int(agreed_code))
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:b], result)

    return pad_and_run


def _wait_on_cpu(result: Any) -> None:
    """Waits for a result on a CPU, whose collectives share one thread pool: two programs in flight can wait for each
    other for ever.
    """
    if jax.device_count() > 1 and jax.default_backend() == "cpu":
        jax.block_until_ready(result)
