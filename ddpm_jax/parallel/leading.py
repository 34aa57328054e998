"""Process 0 leads, and the others compute for it.

What reads and writes files besides training itself (samples, scores, tables, pictures) runs on process 0 alone, in
`on_primary`. Where it calls a function of `pmap_batches`, the others are sent the program, as `jax.export` writes it,
and its arguments, and compute their part: they need no data, no work folder and no cache, and cannot disagree.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ddpm_jax.parallel.devices import AXIS, local_rows, replicate, wait_on_cpu
from ddpm_jax.parallel.processes import from_primary, is_primary, together
from ddpm_jax.runtime import signals

_functions = 0  # made on process 0 so far: the number of one tells its parameters from another's


def on_primary(function: Callable[[], Any]) -> Any:
    """Calls `function()` on process 0, while the others compute their part of what it spreads (`pmap_batches`).

    Returns:
        What it returned; None on the other processes.

    Raises:
        ValueError, OSError: as `function()` does; on the other processes ProcessError, as in `together`.
        signals.Stopped: on all, if a signal asked for it.
    """
    if jax.process_count() == 1:
        return function()
    return together((lambda: _lead(function)) if is_primary() else _follow)


def pmap_batches(function: Callable) -> Callable:
    """Spreads `function(params, *arrays [B, ...]) -> pytree of [B, ...]` over the devices of all processes.

    Returns:
        The same function for replicated `params` and any B: a batch that the devices cannot share equally is filled
        up with copies of its last row, which are dropped from the result. Of several processes, the first calls it,
        inside `on_primary`. It raises signals.Stopped if a StopRequest is entered and a signal has come.
    """
    run = _alone(function) if jax.process_count() == 1 else _led(function)

    def pad_and_run(params: Any, *arrays: Any) -> Any:
        signals.check()
        b, n = len(arrays[0]), jax.device_count()
        rows = np.minimum(np.arange(-(-b // n) * n), b - 1)
        result = run(params, tuple(array[rows] for array in arrays))
        return jax.tree.map(lambda x: x[:b], result)

    return pad_and_run


def _alone(function: Callable) -> Callable[[Any, tuple], Any]:
    """For the devices of the only process."""
    mapped = jax.pmap(lambda params, arrays: function(params, *arrays), in_axes=(None, 0))

    def run(params: Any, arrays: tuple) -> Any:
        result = mapped(params, tuple(_split(array) for array in arrays))  # each [n, b, ...]
        wait_on_cpu(result)
        return jax.tree.map(_join, result)

    return run


def _led(function: Callable) -> Callable[[Any, tuple], Any]:
    """For the devices of all processes: sends the program once for each shape, parameters when they are others."""
    global _functions
    number, _functions = _functions, _functions + 1
    made: dict[tuple, tuple[Callable, Any]] = {}  # by the shapes: the mapped program, the structure of its result
    held: list[Any] = []  # the leaves of the parameters that were sent last

    def run(params: Any, arrays: tuple) -> Any:
        leaves, structure = jax.tree.flatten(params)
        shapes = tuple((array.shape, str(array.dtype)) for array in arrays)
        message: dict[str, Any] = {"function": number, "shapes": repr(shapes)}
        program = np.zeros(0, np.uint8)
        if shapes not in made:
            exported, result = _export(function, structure, leaves, arrays)
            program = np.frombuffer(exported, np.uint8)
            made[shapes] = _map(exported), result
        mapped, result_structure = made[shapes]
        fresh = [i for i, leaf in enumerate(leaves) if len(held) != len(leaves) or leaf is not held[i]]
        held[:] = leaves
        data = [_data(array) for array in arrays]
        sent = [program, *(np.asarray(leaves[i]) for i in fresh), *data]
        message |= {"fresh": fresh, "arrays": [[array.shape, str(array.dtype)] for array in sent]}
        _send(message)
        from_primary(sent)
        found, asked = _run(mapped, leaves, data, asked=0)
        signals.relay(asked)
        return jax.tree.unflatten(result_structure, found)

    return run


def _lead(function: Callable[[], Any]) -> Any:
    try:
        result = function()
    except (ValueError, OSError, signals.Stopped):
        _send({})
        raise
    _send({})
    return result


def _follow() -> None:
    """Computes what process 0 sends, until it sends nothing."""
    programs: dict[tuple[int, str], Callable] = {}
    parameters: dict[int, dict[int, Any]] = {}
    with signals.StopRequest() as stop:
        while message := _receive():
            program, *rest = from_primary([np.zeros(shape, dtype) for shape, dtype in message["arrays"]])
            number, fresh = message["function"], message["fresh"]
            key = number, message["shapes"]
            if program.size:
                programs[key] = _map(bytes(program))
            held = parameters.setdefault(number, {})
            held.update(zip(fresh, replicate(rest[: len(fresh)]), strict=True))
            leaves = [held[i] for i in range(len(held))]
            _run(programs[key], leaves, rest[len(fresh) :], asked=stop.exit_code)


def _export(function: Callable, structure: Any, leaves: list, arrays: tuple) -> tuple[bytes, Any]:
    """The program of one device, from lists of arrays to a list of arrays, and the structure of its result."""
    result_structure = None

    def flat(leaves: list, data: list) -> list:
        nonlocal result_structure
        params = jax.tree.unflatten(structure, leaves)
        own = [_restored(array, like) for array, like in zip(data, arrays, strict=True)]
        found, result_structure = jax.tree.flatten(function(params, *own))
        return found

    b = len(arrays[0]) // jax.device_count()
    abstract = [jax.ShapeDtypeStruct((b, *array.shape[1:]), array.dtype) for array in map(_data, arrays)]
    like = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    exported = jax.export.export(jax.jit(flat))(like, abstract)
    return bytes(exported.serialize()), result_structure


def _map(exported: bytes) -> Callable:
    """All processes map the same bytes: what devices of several run together must be one program."""
    call = jax.export.deserialize(bytearray(exported)).call

    def run(leaves: list, data: list, asked: jax.Array) -> tuple[Any, jax.Array]:
        return jax.lax.all_gather(call(leaves, data), AXIS), jax.lax.pmax(asked, AXIS)

    return jax.pmap(run, axis_name=AXIS, in_axes=(None, 0, 0), out_axes=(None, None))


def _run(mapped: Callable, leaves: list, data: list, *, asked: int) -> tuple[list, int]:
    """Computes with this process's rows of the data; returns all rows, and the largest that a process asked for."""
    rows = local_rows(len(data[0]))
    local = [_split(array[rows]) for array in data]
    found, agreed = mapped(leaves, local, np.full(jax.local_device_count(), asked, np.int32))
    wait_on_cpu(found)
    return [_join(array) for array in found], int(agreed)


def _split(array: Any) -> Any:
    """[B, ...] -> [n, B / n, ...] for n local devices."""
    return array.reshape(jax.local_device_count(), -1, *array.shape[1:])


def _join(array: Any) -> Any:
    return array.reshape(-1, *array.shape[2:])


def _data(array: Any) -> Any:
    """An array as it is sent: keys as their numbers."""
    return np.asarray(jax.random.key_data(array) if _is_keys(array) else array)


def _restored(data: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(like)) if _is_keys(like) else data


def _is_keys(array: Any) -> bool:
    return jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)


def _send(message: dict[str, Any]) -> None:
    encoded = np.frombuffer(json.dumps(message).encode(), np.uint8)
    from_primary(np.int32(encoded.size))
    from_primary(encoded)


def _receive() -> dict[str, Any]:
    size = int(from_primary(np.int32(0)))
    return json.loads(bytes(from_primary(np.zeros(size, np.uint8))))
