"""The processes of a run: how they meet, fail together, and share what one of them knows."""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import numpy as np
from jax.experimental import multihost_utils

from ddpm_jax.arguments import listed
from ddpm_jax.parallel.watch import PeerWatch
from ddpm_jax.runtime import sockets
from ddpm_jax.runtime.signals import Stopped

_MESSAGE_BYTES = 2000
_SHOWN = 5  # differences between processes
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
        mode: 'on': JAX asks the cluster for what is not given (Cloud TPU, GKE, SLURM, Open MPI); 'auto': the same if
            anything is given or the environment says that this is one process of several, else nothing; 'off':
            nothing.
        coordinator_address: host:port, on which process 0 listens.
        num_processes: of the run.
        process_id: from 0.
        timeout_s: for all to come together. Past it, the process says so and ends.
        heartbeat_timeout_s: a process not heard of for this long is taken for dead, and JAX ends the others.

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
    _meet()


def _meet() -> None:
    """Has each kind of collective once, while all processes are here.

    Gloo, which serves CPUs, connects the devices of a collective when it is first run, and fails where processes reach
    it more than 30 s apart: one may compile longer, or read slower. Once connected, they wait for each other.
    """
    multihost_utils.sync_global_devices("ddpm_jax.initialize")  # a device of each process, as `broadcast`
    multihost_utils.process_allgather(np.int32(0))
    jax.pmap(lambda x: jax.lax.psum(x, "all"), axis_name="all")(np.zeros(jax.local_device_count()))  # all devices


def watch_peers(coordinator_address: str | None) -> PeerWatch | None:
    """Starts to watch the other processes of the run; None for a process alone.

    Args:
        coordinator_address: host:port of process 0, where it was given.

    Raises:
        ProcessError: if another ends before it can be watched.
    """
    if jax.process_count() == 1:
        return None
    server = sockets.listen(0, backlog=jax.process_count()) if is_primary() else None
    host = coordinator_address.rpartition(":")[0].strip("[]") if coordinator_address else socket.gethostname()
    try:
        host, port = agree(lambda: [host, server.getsockname()[1]])
    except Exception as error:
        if not is_of_a_collective(error):
            raise
        raise ProcessError(
            "Lost another process while they met: start all again; a run continues from its checkpoint."
        ) from error
    return PeerWatch(
        process=jax.process_index(), num_processes=jax.process_count(), address=(host, port), server=server
    )


def is_of_a_collective(error: Exception) -> bool:
    """Tells whether an error may come from a lost peer rather than from this process."""
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def check_initialized() -> None:
    """Refuses to run as one of several processes unknowingly: a Cloud TPU tells only when its chips are opened.

    Raises:
        ValueError: if there are more processes than this, and `initialize` was not told.
    """
    if jax.process_count() > 1 and not jax.distributed.is_initialized():
        raise ValueError(f"This is one of {jax.process_count()} processes; start each with --distributed=on.")


def _several_tasks(environment: os._Environ[str] | dict[str, str]) -> bool:
    """Tells whether a launcher that JAX knows started this process as one of several."""
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    slurm = environment.get("SLURM_NTASKS", "1") if "SLURM_STEP_NODELIST" in environment else "1"
    open_mpi = environment.get("OMPI_COMM_WORLD_SIZE", "1") if "OMPI_MCA_orte_hnp_uri" in environment else "1"
    return len(hosts) > 1 or any(count != "1" for count in (slices, slurm, open_mpi))


def is_primary() -> bool:
    """Tells whether this is process 0, which writes: files, and lines on the terminal."""
    return jax.process_index() == 0


def own_folder(directory: Path) -> Path:
    """Returns a folder for files whose names several processes share; `directory` itself for a process alone."""
    return directory if jax.process_count() == 1 else directory / f"process_{jax.process_index()}"


def leave(exit_code: int) -> None:
    """Ends one of several processes after an error, without waiting for the others, which end when they notice."""
    if jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def raise_on_all(function: Callable[[], Any]) -> Any:
    """Calls `function()` on every process; where it raises a ValueError, OSError or Stopped on one, all raise.

    Returns:
        What it returned here.

    Raises:
        ProcessError: if it failed on another process, with the message from there.
        signals.Stopped: if it was stopped on another.
    """
    if jax.process_count() == 1:
        return function()
    result, failure = None, None
    try:
        result = function()
    except (ValueError, OSError, Stopped) as error:
        failure = error
    message = np.frombuffer(str(failure or "").encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0"), np.uint8)
    code = np.int32(failure.exit_code if isinstance(failure, Stopped) else 0)
    codes, messages = multihost_utils.process_allgather((code, message))
    if failure:
        raise failure
    for process, (code, row) in enumerate(zip(codes, messages, strict=True)):
        text = bytes(row).rstrip(b"\0").decode(errors="replace")
        if code:
            raise Stopped(text, int(code))
        if text:
            raise ProcessError(f"Process {process} failed: {text}")
    return result


def agree(fact: Callable[[], Any]) -> Any:
    """Calls `fact()` on process 0 and returns its value on every process.

    Args:
        fact: returns a JSON value; tuples become lists.

    Raises:
        ValueError, OSError: as `fact()` does; on the other processes ProcessError, as in `raise_on_all`.
        signals.Stopped: likewise.
    """
    encoded = json.dumps(raise_on_all(lambda: fact() if is_primary() else None)).encode()
    size = int(broadcast(np.int32(len(encoded))))
    padded_size = 1 << size.bit_length()  # few sizes: each is compiled once
    padded = np.frombuffer(
        encoded[:padded_size].ljust(padded_size), np.uint8
    )  # of the others, what they have is dropped
    return json.loads(bytes(broadcast(padded)))


def check_same(facts: Callable[[], Mapping[str, Any]]) -> None:
    """Refuses to go on, on all processes, where one of them differs from process 0.

    Args:
        facts: returns JSON values by names for people, that all processes must have in common; a process alone is not
            asked.

    Raises:
        ValueError: naming what differs, and on which process.
    """

    def compare(own: dict[str, Any], expected: dict[str, Any]) -> None:
        differences = [
            f"{name}: {own.get(name)!s:.100} here, {expected.get(name)!s:.100} on process 0"
            for name in {**expected, **own}
            if own.get(name) != expected.get(name)
        ]
        if differences:
            raise ValueError(f"It differs from process 0 in {listed(differences, _SHOWN)}. All must run the same.")

    if jax.process_count() > 1:
        own = raise_on_all(lambda: json.loads(json.dumps(dict(facts()))))
        expected = agree(lambda: own)
        raise_on_all(lambda: compare(own, expected))


def broadcast(tree: Any) -> Any:
    """Returns the pytree of arrays of process 0 on every process; the others give one of the same shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def read_on_primary(read: Callable[[], dict]) -> dict:
    """Calls `read() -> nested dict of arrays` on process 0 and returns the arrays on every process.

    Raises:
        ValueError, OSError: as `read()` does; on the other processes ProcessError, as in `raise_on_all`.
    """
    if jax.process_count() == 1:
        return read()
    arrays = raise_on_all(lambda: flax.traverse_util.flatten_dict(read(), sep="/") if is_primary() else {})
    shapes = agree(lambda: {name: [array.shape, array.dtype.name] for name, array in arrays.items()})
    same_shapes = {name: arrays.get(name, np.zeros(shape, dtype)) for name, (shape, dtype) in shapes.items()}
    return flax.traverse_util.unflatten_dict(broadcast(same_shapes), sep="/")
