"""The devices: how a state is replicated, a batch is split, and work is mapped over them."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ddpm_jax.runtime import compilation, signals
from ddpm_jax.sampling import Chain

AXIS = "batch"

_DISPATCH_S = 2.0  # of a loop: how long Ctrl-C waits, and how often a bar moves
_SHORT, _FIRST_STEPS = 50, 10  # steps of a loop that is first tried in one dispatch; of the first dispatch of others


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


def check_batch_size(name: str, batch_size: int, *, microbatches: int = 1, num_devices: int | None = None) -> None:
    """Refuses a batch that the devices (None: all of the run) cannot share equally or split into microbatches.

    Raises:
        ValueError: naming the setting and the nearest size that fits.
    """
    devices = num_devices or jax.device_count()
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
    mapped = compilation.announced("the train step", _map_steps(train_step))

    def split_and_run(state: Any, batch: Any, stop_code: int = 0) -> tuple[Any, Any, jax.Array]:
        n = jax.local_device_count()
        split = jax.tree.map(lambda x: x.reshape(x.shape[0], n, -1, *x.shape[2:]), batch)  # [K, n, b / n, ...]
        results = mapped(state, split, np.full(n, stop_code, np.int32))
        _wait_on_cpu(results[1])
        return results

    return split_and_run


def lower_train_steps(
    train_step: Callable, state: Any, batch: Any, *, devices: Sequence[jax.Device] | None = None
) -> jax.stages.Lowered:
    """Lowers the program that `pmap_train_steps` runs; it is neither compiled nor run.

    Args:
        train_step: as there.
        state: its abstract form; on the devices that are here, with the sharding `replicated`.
        batch: the abstract global batch, a pytree of [K, B, ...].
        devices: all that it is for, of any machine; None: those of this run.
    """
    n = len(devices or jax.local_devices())
    total = len(devices or jax.devices())

    def split(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        k, b, *rest = x.shape
        return jax.ShapeDtypeStruct((k, n, b // total, *rest), x.dtype)

    mapped = _map_steps(train_step, devices)
    return mapped.lower(state, jax.tree.map(split, batch), jax.ShapeDtypeStruct((n,), np.int32))


def _map_steps(train_step: Callable, devices: Sequence[jax.Device] | None = None) -> Callable:
    def steps(state: Any, batch: Any, stop_code: jax.Array) -> tuple[Any, Any, jax.Array]:
        state, metrics = jax.lax.scan(train_step, state, batch)
        return state, metrics, jax.lax.pmax(stop_code, AXIS)

    return jax.pmap(
        steps, axis_name=AXIS, in_axes=(None, 1, 0), out_axes=(None, None, None), donate_argnums=0, devices=devices
    )


def map_batches(function: Callable, *, name: str = "the evaluation") -> Callable:
    """Maps `function(shared, *arrays [B, ...]) -> pytree of [B, ...]` over the devices of all processes.

    Args:
        function: of one device.
        name: what is said to be compiled.

    Returns:
        The same function, which every process calls alike: with `shared` replicated (`replicate`) and all rows of the
        batch, any B. It returns all rows everywhere, as NumPy arrays. A batch that the devices cannot share equally is
        filled up with copies of its last row, which are dropped from the result. A stop that one process was asked
        for travels with the batch: the next call raises signals.Stopped on all. `report(1.0)` is called at the end.
    """

    def run_on_device(shared: Any, arrays: tuple, stop_code: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.all_gather(function(shared, *arrays), AXIS), jax.lax.pmax(stop_code, AXIS)

    mapped = jax.pmap(run_on_device, axis_name=AXIS, in_axes=(None, 0, 0), out_axes=(None, None))
    mapped = compilation.announced(name, mapped)

    def split_and_run(shared: Any, *arrays: Any, report: Callable[[float], None] | None = None) -> Any:
        signals.check()
        begin = time.monotonic()
        result, agreed_code = mapped(shared, _local_parts(arrays), _each(signals.stop_code()))
        _wait_on_cpu(result)
        signals.receive_stop_code(int(agreed_code))
        rows = _all_rows(result, len(arrays[0]))
        signals.expect(time.monotonic() - begin)
        if report:
            report(1.0)
        return rows

    return split_and_run


def map_chain(chain_of: Callable[[Any], Chain], *, name: str) -> Callable:
    """Maps a chain over the devices of all processes as `map_batches` maps a function, but in several dispatches.

    After each it is told how far the batch is, and signals.Stopped is raised on all processes if one of them was asked
    to stop. So a dispatch has as many steps as take about two seconds, by the time that those before took. How many is
    an argument of the one compiled program: however the steps are divided, they give the same bits.

    Args:
        chain_of: `shared -> chain`; what it reads is a pytree of [B, ...].
        name: what is said to be compiled.

    Returns:
        `(shared, *arrays [B, ...], report=None) -> pytree of [B, ...]`, with the arrays that the chain takes;
        `report(share)` is called with the share of the steps that are taken, in (0, 1].
    """

    def begin_on_device(shared: Any, arrays: tuple) -> Any:
        return chain_of(shared).init(*arrays)

    def finish_on_device(shared: Any, carried: Any) -> Any:
        return jax.lax.all_gather(chain_of(shared).read(carried), AXIS)

    begin_mapped = jax.pmap(begin_on_device, axis_name=AXIS, in_axes=(None, 0))
    finish_mapped = jax.pmap(finish_on_device, axis_name=AXIS, in_axes=(None, 0), out_axes=None)
    run_mapped = compilation.announced(name, _map_chain_steps(chain_of))
    paces: dict[int, tuple[int, int]] = {}  # by batch size, steps a dispatch: as all agreed, and as this process wants

    def split_and_run(shared: Any, *arrays: Any, report: Callable[[float], None] | None = None) -> Any:
        signals.check()
        b, local, num_steps, end = len(arrays[0]), _local_parts(arrays), int(chain_of(shared).num_steps), 0
        carried = begin_mapped(shared, local)
        while end < num_steps:
            signals.check()
            pace, wanted = paces.get(b, (num_steps if num_steps <= _SHORT else _FIRST_STEPS,) * 2)
            started, begin, end = time.monotonic(), end, min(end + pace, num_steps)
            carried, news = run_mapped(
                shared, local, carried, _each([begin, end]), _each([signals.stop_code(), -wanted])
            )
            _wait_on_cpu(carried)
            agreed_code, least_wanted = np.asarray(news) * (1, -1)
            signals.receive_stop_code(int(agreed_code))
            seconds = time.monotonic() - started
            if b in paces:  # else it was compiled meanwhile
                wanted = max(1, round((end - begin) * _DISPATCH_S / seconds))
                signals.expect(seconds)
            paces[b] = int(least_wanted), min(wanted, num_steps)
            if report:
                report(end / num_steps)
        result = finish_mapped(shared, carried)
        _wait_on_cpu(result)
        return _all_rows(result, b)

    return split_and_run


def lower_chain(
    chain_of: Callable[[Any], Chain], shared: Any, *arrays: jax.ShapeDtypeStruct, devices: Sequence[jax.Device]
) -> jax.stages.Lowered:
    """Lowers the program in which `map_chain` takes its steps, for devices of any machine; it is not compiled.

    Args:
        chain_of: as there.
        shared: its abstract form.
        *arrays: the abstract arrays [B, ...] that the chain takes; a B that the devices cannot share is filled up.
        devices: all that it is for.
    """
    n = len(devices)

    def on_each(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((n, *x.shape), x.dtype)

    own = [jax.ShapeDtypeStruct((-(-len(x) // n), *x.shape[1:]), x.dtype) for x in arrays]
    carried = jax.eval_shape(lambda shared, arrays: chain_of(shared).init(*arrays), shared, own)
    bounds = jax.ShapeDtypeStruct((n, 2), np.int32)
    arguments = shared, tuple(map(on_each, own)), jax.tree.map(on_each, carried), bounds, bounds
    return _map_chain_steps(chain_of, devices).lower(*arguments)


def _map_chain_steps(chain_of: Callable[[Any], Chain], devices: Sequence[jax.Device] | None = None) -> Callable:
    def run(shared: Any, arrays: tuple, carried: Any, bounds: jax.Array, news: jax.Array) -> tuple:
        return chain_of(shared).run(carried, bounds[0], bounds[1], *arrays), jax.lax.pmax(news, AXIS)

    return jax.pmap(
        run, axis_name=AXIS, in_axes=(None, 0, 0, 0, 0), out_axes=(0, None), donate_argnums=2, devices=devices
    )


def _each(value: Any) -> np.ndarray:
    """Returns what is given to each local device: int32 [n, ...]."""
    return np.stack([np.asarray(value, np.int32)] * jax.local_device_count())


def _local_parts(arrays: tuple) -> tuple:
    """Splits the rows of arrays [B, ...] over this process's devices, [n, b, ...]; copies of the last fill them up."""
    b, n = len(arrays[0]), jax.device_count()
    padded = -(-b // n) * n
    rows = np.minimum(np.arange(padded), b - 1)[local_rows(padded)]
    return tuple(array[rows].reshape(jax.local_device_count(), -1, *array.shape[1:]) for array in arrays)


def _all_rows(gathered: Any, b: int) -> Any:
    """Returns the B rows of arrays gathered from all devices, [n, b, ...], as NumPy arrays."""
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:b], gathered)


def _wait_on_cpu(result: Any) -> None:
    """Waits for a result on a CPU, whose collectives share one thread pool: two programs in flight can wait for each
    other for ever.
    """
    if jax.device_count() > 1 and jax.default_backend() == "cpu":
        jax.block_until_ready(result)
