"""Devices and processes: how a state is replicated, a batch is split, and a function is mapped over them.

The one file that names meshes, devices and processes. `jax.pmap` is used as it is today, a `jit` of a `shard_map`:
the state goes in and comes out whole and replicated, with no leading device axis. Over several processes each runs
the same program; a mapped function takes the rows of the local devices and computes with those of all.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"

_MESSAGE_BYTES = 2000
_SHUTDOWN_S = 3600  # a process that is done waits that long for the one that still saves


class ProcessError(ValueError):
    """Something failed in one process, and is raised in all."""


def initialize(
    *,
    mode: str,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout_s: int,
    heartbeat_timeout_s: int,
) -> None:
    """Joins the processes of a run, by JAX's own runtime, before anything else is done with JAX.

    Args:
        mode: 'on': whatever is not given, JAX finds out from the cluster (Cloud TPU, GKE, SLURM, Open MPI); 'auto':
            the same if anything is given or the environment says that this is one process of several, else nothing;
            'off': nothing.
        coordinator_address: host:port, on which process 0 listens.
        num_processes: of the run.
        process_id: from 0.
        timeout_s: for all to come together. Past it, the process says so and ends.
        heartbeat_timeout_s: a process not heard of for this long is taken for dead, and the others end.

    Raises:
        ValueError: if what is given is not enough or makes no sense.
    """
    given = (coordinator_address, num_processes, process_id)
    if mode == "off" or (mode == "auto" and given == (None, None, None) and not _several_tasks(os.environ)):
        return
    name = "This process" if process_id is None else f"Process {process_id} of {num_processes}"

    def give_up() -> None:
        # JAX would abort with a stack trace of its C++ code.
        where = coordinator_address or "the address that JAX found"
        print(f"{name} did not meet the others at {where} within {timeout_s} s: are all started?", file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)

    # SIGTERM is ours (signals.py): agreed by the train step itself, it needs no service.
    jax.config.update("jax_enable_preemption_service", False)
    watchdog = threading.Timer(timeout_s, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        jax.distributed.initialize(
            *given,
            initialization_timeout=timeout_s + 60,
            heartbeat_timeout_seconds=heartbeat_timeout_s,
            shutdown_timeout_seconds=_SHUTDOWN_S,
        )
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{name} cannot join a run of several: {str(error).splitlines()[0]} Give --coordinator_address, "
            "--num_processes and --process_id, or --distributed=off."
        ) from error
    finally:
        watchdog.cancel()


def check_initialized() -> None:
    """Refuses to be one of several without knowing: a Cloud TPU tells it only when its chips are opened.

    Raises:
        ValueError: if there are more processes than this, and `initialize` was not told.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ValueError(f"This is one of {jax.process_count()} processes; start each with --distributed=on.")


def _several_tasks(environment: os._Environ[str] | dict[str, str]) -> bool:
    """Whether a launcher that JAX knows started this process as one of several."""
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    slurm = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in environment else "1"
    open_mpi = environment.get("OMPI_COMM_WORLD_SIZE", "1") if "OMPI_MCA_orte_hnp_uri" in environment else "1"
    return len(hosts) > 1 or any(count != "1" for count in (slices, slurm, open_mpi))


def is_primary() -> bool:
    """Whether this is the process that writes: files, and lines on the terminal."""
    return jax.process_index() == 0


def leave(exit_code: int) -> None:
    """After an error: ends one of several processes without waiting for the others, which end when they notice."""
    if jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def together(function: Callable[[], Any]) -> Any:
    """Calls `function()` on every process; where it raises a ValueError or OSError on one, all raise.

    Returns:
        What it returned here.

    Raises:
        ProcessError: if it failed on another process, with the message from there.
    """
    if jax.process_count() == 1:
        return function()
    result, failure = None, None
    try:
        result = function()
    except (ValueError, OSError) as error:
        failure = error
    message = str(failure or "").encode()[:_MESSAGE_BYTES]
    row = np.frombuffer(message.ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    messages = [bytes(row).rstrip(b"\0").decode(errors="replace") for row in multihost_utils.process_allgather(row)]
    if failure:
        raise failure
    for process, text in enumerate(messages):
        if text:
            raise ProcessError(f"Process {process} failed: {text}")
    return result


def on_primary(function: Callable[[], Any]) -> Any:
    """Calls `function()` on process 0 while the others wait; where it fails, all raise, as in `together`."""
    return together(lambda: function() if is_primary() else None)


def from_primary(tree: Any) -> Any:
    """The pytree of arrays that process 0 gives; the others give one of the same shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def largest(value: int) -> int:
    """The largest of the values that the processes give."""
    return value if jax.process_count() == 1 else int(multihost_utils.process_allgather(np.int32(value)).max())


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
        _wait_on_cpu(results[1])
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


def pmap_batches(function: Callable) -> Callable:
    """Spreads `function(params, *arrays [B, ...]) -> pytree of [B, ...]` over the devices of all processes.

    Returns:
        The same function for replicated `params` and any B: a batch that the devices cannot share equally is
        filled up with copies of its last row, which are dropped from the result. All processes call it together,
        with the same arrays, and each gets all rows of the result.
    """
    processes = jax.process_count()

    def run(params: Any, arrays: Any) -> Any:
        result = function(params, *arrays)
        return jax.lax.all_gather(result, AXIS) if processes > 1 else result

    mapped = jax.pmap(run, axis_name=AXIS, in_axes=(None, 0), out_axes=None if processes > 1 else 0)

    def pad_and_run(params: Any, *arrays: Any) -> Any:
        b, n = len(arrays[0]), jax.device_count()
        rows = np.minimum(np.arange(-(-b // n) * n), b - 1)
        local = rows[local_rows(len(rows))].reshape(jax.local_device_count(), -1)
        result = mapped(params, tuple(array[local] for array in arrays))  # each [n, b / n, ...]
        _wait_on_cpu(result)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:b], result)

    return pad_and_run


def _wait_on_cpu(result: Any) -> None:
    # XLA's CPU collectives share one thread pool: two programs in flight can wait for each other for ever.
    if jax.device_count() > 1 and jax.default_backend() == "cpu":
        jax.block_until_ready(result)
