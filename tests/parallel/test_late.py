"""Processes that come more than 30 s apart, which is how long Gloo waits, to the start and to what they compute."""

import os
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
import numpy as np
from ddpm_jax import parallel

address, process = sys.argv[1], int(sys.argv[2])
late = lambda: time.sleep(32.0 * process)
late()
parallel.initialize(mode="on", coordinator_address=address, num_processes=2, process_id=process, timeout_s=120,
                    heartbeat_timeout_s=60)
late()
told = parallel.agree(lambda: "hello")
double = parallel.map_batches(lambda factor, rows: factor * rows)
late()
print(told, double(np.float32(2), np.ones((4, 1), np.float32)).sum(), parallel.broadcast(np.float32(5)))
"""


@pytest.mark.slow
def test_processes_wait_for_each_other():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(i)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for i in range(2)
    ]
    try:
        printed = [process.communicate(timeout=300)[0].splitlines()[-1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert printed == ["hello 8.0 5.0"] * 2
    assert [process.returncode for process in processes] == [0, 0]
