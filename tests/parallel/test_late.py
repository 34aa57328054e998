"""Processes that come more than 30 s apart, which is how long Gloo waits, to the start and to what they compute."""

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
def test_processes_wait_for_each_other(run_two):
    outputs, codes = run_two(PROGRAM, timeout=300)
    assert [output.splitlines()[-1] for output in outputs] == ["hello 8.0 5.0"] * 2
    assert codes == [0, 0]
