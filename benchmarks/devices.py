"""1, 2, 4 and 8 devices that share this machine's cores, and 2 processes of 2 devices: what sharing a batch costs.

The CIFAR-10 model with one global batch; the collective alone, a mean of arrays as large as the gradients; and the
overhead of `pmap` beside `jit(shard_map)`, by a step that does nothing with the state of that model.
python -m benchmarks.devices [--quick]
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import command, workloads
from benchmarks.report import Measured, Ratio, Report
from benchmarks.timing import alternate
from ddpm_jax import parallel

_ROOT = Path(__file__).parents[1]
_STEP, _MEAN, _PMAP, _SHARD_MAP = "train step", "mean of the gradients", "pmap, idle step", "jit(shard_map), idle step"


def measure(*, quick: bool) -> Report:
    """Each arrangement in processes of its own, as JAX fixes its devices when it starts."""
    results = Report(
        "Devices", {"global batch": workloads.cifar10(quick=quick).train.batch_size, "devices": "on a CPU"}
    )
    arrangements = {"1 device": (1, 1), "2 devices": (1, 2), "4 devices": (1, 4), "8 devices": (1, 8)}
    arrangements |= {"2 processes of 2": (2, 2)}
    for name, (processes, devices) in arrangements.items():
        for what, seconds in _in_processes(processes, devices, quick=quick).items():
            results.rows[f"{name}: {what}"] = Measured(seconds, "s")
    one = min(results.rows[f"1 device: {_STEP}"].values)
    for name in arrangements:
        step, mean, pmap, shard_map = (
            min(results.rows[f"{name}: {w}"].values) for w in (_STEP, _MEAN, _PMAP, _SHARD_MAP)
        )
        results.ratios[f"{name}: time of a step over that of 1 device"] = Ratio(step / one)
        results.ratios[f"{name}: share of the mean of the gradients in a step"] = Ratio(mean / step)
        results.ratios[f"{name}: share of what pmap costs over jit(shard_map)"] = Ratio(
            (pmap - shard_map) / step, at_most=0.03
        )
    return results


def _in_processes(processes: int, devices: int, *, quick: bool) -> dict[str, list[float]]:
    """Runs `_child` in each process; returns what the first results."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks.devices", "child", json.dumps([address, processes, i, quick])],
            cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True,
        )
        for i in range(processes)
    ]  # fmt: skip
    outputs = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError(f"{processes} processes of {devices} devices ended with {[c.returncode for c in children]}.")
    return json.loads(outputs[0].splitlines()[-1])


def _child(address: str, processes: int, process: int, quick: bool) -> None:
    if processes > 1:
        parallel.initialize(
            mode="on", coordinator_address=address, num_processes=processes, process_id=process, timeout_s=60,
            heartbeat_timeout_s=600,
        )  # fmt: skip
    config = workloads.cifar10(quick=quick)
    training, batch = workloads.Training(config), workloads.pixels(config)
    rows = batch[:, parallel.local_rows(batch.shape[1])]
    params = _copy(training.state.params)
    contenders = {
        _STEP: lambda: training.run(rows, dispatches=1),
        _MEAN: _mean_of(params),
        _PMAP: _idle(parallel.pmap_train_steps(_idle_step), parallel.replicate(training.state), rows),
        _SHARD_MAP: _idle(_shard_mapped(), _global(training.state), rows),
    }
    print(json.dumps(alternate(contenders, repeats=2 if quick else 10).seconds))


def _idle_step(state: Any, pixels: jax.Array) -> tuple[Any, jax.Array]:
    """Changes next to nothing in the state, and reports a number."""
    return state.replace(step=state.step + 1), jax.lax.pmean(pixels.astype(np.float32).mean(), parallel.AXIS)


def _mean_of(params: Any) -> Callable[[], Any]:
    n = jax.local_device_count()
    mean = jax.pmap(
        lambda grads, _: jax.lax.pmean(grads, parallel.AXIS), axis_name=parallel.AXIS, in_axes=(None, 0), out_axes=None
    )
    return lambda: jax.block_until_ready(mean(params, np.zeros(n, np.float32)))


def _idle(step: Callable, state: Any, pixels: np.ndarray) -> Callable[[], Any]:
    """Makes a step with its own state, which it donates."""
    state = _copy(state)

    def run() -> None:
        nonlocal state
        state, *rest = step(state, pixels)
        jax.block_until_ready(rest)

    return run


def _copy(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.copy(), tree)


def _mesh() -> Mesh:
    return Mesh(np.asarray(jax.devices()), (parallel.AXIS,))


def _global(tree: Any) -> Any:
    """Replicated over the devices of all processes."""
    sharding = NamedSharding(_mesh(), PartitionSpec())
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def _shard_mapped() -> Callable:
    """What `pmap_train_steps` does, with arrays that are global on the way in and out: nothing is converted."""
    spec = PartitionSpec(None, parallel.AXIS)

    def steps(state: Any, pixels: jax.Array, stop_code: jax.Array) -> Any:
        state, metrics = jax.lax.scan(_idle_step, state, pixels)
        return state, metrics, jax.lax.pmax(stop_code, parallel.AXIS)

    mapped = jax.jit(
        jax.shard_map(
            steps, mesh=_mesh(), in_specs=(PartitionSpec(), spec, PartitionSpec(parallel.AXIS)),
            out_specs=PartitionSpec(), check_vma=False,
        ),
        donate_argnums=0,
    )  # fmt: skip
    place = NamedSharding(_mesh(), spec)
    flags = NamedSharding(_mesh(), PartitionSpec(parallel.AXIS))
    stop_code = np.zeros(jax.local_device_count(), np.int32)

    def run(state: Any, pixels: np.ndarray) -> Any:
        return mapped(
            state,
            jax.make_array_from_process_local_data(place, pixels),
            jax.make_array_from_process_local_data(flags, stop_code),
        )

    return run


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(*json.loads(sys.argv[2]))
    else:
        command.run(measure)
