"""Starts JAX's runtime on all processes, up to a barrier of all devices, and names the stage that fails or hangs."""

import collections
import logging
import queue
import threading

from ddpm_jax.doctor import diagnosis
from ddpm_jax.doctor.report import Report

_log = logging.getLogger(__name__)


def start(own: Report, *, address: str, timeout_s: float) -> list[str]:
    """Starts JAX in a thread, which is abandoned after `timeout_s`, and returns the problems."""
    stages, results = ["importing JAX"], queue.SimpleQueue()
    threading.Thread(target=lambda: results.put(_run(own, address=address, stages=stages)), daemon=True).start()
    try:
        return results.get(timeout=timeout_s)  # JAX would wait for longer, or abort with a stack trace of its C++ code
    except queue.Empty:
        return [f"{own.name}: {stages[-1]} takes more than {timeout_s:g} s."]


def _run(own: Report, *, address: str, stages: list[str]) -> list[str]:
    try:
        import jax
        from jax.experimental import multihost_utils

        if own.num_processes > 1:
            stages.append("jax.distributed.initialize")
            jax.distributed.initialize(address, own.num_processes, own.process)
        stages.append("starting the devices")
        devices = jax.devices()
        kinds = collections.Counter(device.device_kind for device in devices)
        described = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        _log.info("  %s in all, %d of them here", described, jax.local_device_count())
        stages.append("a sum over all devices")
        multihost_utils.sync_global_devices("doctor")
        counts = collections.Counter(device.process_index for device in devices)
        if own.num_processes > 1:
            stages.append("jax.distributed.shutdown")
            jax.distributed.shutdown()
        return diagnosis.device_problems(counts, num_processes=own.num_processes)
    except Exception as error:  # whatever JAX raises is a result, not a crash
        return [f"{own.name}: {stages[-1]} failed: {(str(error) or repr(error)).splitlines()[0]}."]
