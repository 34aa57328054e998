"""What the processes of a run share: two real processes of two devices call the same functions."""

import json

import numpy as np
import pytest

from ddpm_jax import parallel

PROGRAM = """
import json, os, signal, sys
import jax, numpy as np
from ddpm_jax import parallel
from ddpm_jax.runtime.signals import Stopped, StopRequest

address, process = sys.argv[1], int(sys.argv[2])
parallel.initialize(mode="on", coordinator_address=address, num_processes=2, process_id=process, timeout_s=60,
                    heartbeat_timeout_s=60)
results = {"primary": parallel.is_primary()}
results["agreed"] = parallel.agree(lambda: {"process": process, "list": (1, 2), "text": "x" * 5000})
results["nothing"] = parallel.agree(lambda: None)
results["broadcast"] = parallel.broadcast(np.arange(3.0) + process).tolist()

def read():
    assert process == 0
    return {"layer": {"kernel": np.full((2, 3), 7.0, np.float32), "count": np.array([5], np.int32)}}

results["read"] = jax.tree.map(lambda x: [str(x.dtype), x.tolist()], parallel.read_on_primary(read))

def fail(who):
    if process == who:
        raise ValueError(f"broken on {who}")

parallel.check_same(lambda: {"steps": 12, "sizes": (1, 2)})
different = {"steps": 12, "rate": 0.1 * (1 + process), "data": "x" * (1000 * process), **({} if process else {"a": 1})}
for name, call in (("check_same", lambda: parallel.check_same(lambda: different)),
                   ("agree", lambda: parallel.agree(lambda: fail(0))),
                   ("raise_on_all", lambda: parallel.raise_on_all(lambda: fail(1)))):
    try:
        call()
    except ValueError as error:
        results[name] = [type(error).__name__, str(error)]

calls = []

def double(scale, rows):
    return {"twice": scale * rows, "sum": rows.sum(axis=1)}

mapped = parallel.map_batches(double)
for n in (8, 5, 1):
    rows = mapped(np.float32(2), np.arange(2.0 * n).reshape(n, 2))
    calls.append(jax.tree.map(lambda x: x.tolist(), rows))
results["mapped"] = calls

done = 0
with StopRequest() as stop:
    try:
        for done in range(1, 100):
            if done == 3 and process == 1:
                os.kill(os.getpid(), signal.SIGTERM)  # before the third batch, which is still computed
            mapped(np.float32(1), np.ones((4, 2)))
    except Stopped as stopped:
        results["stopped"] = [done, stopped.exit_code, stop.exit_code, stop.agreed_code]
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def results(run_two):
    outputs, codes = run_two(PROGRAM, timeout=120)
    assert codes == [0, 0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def test_a_fact_of_process_0_is_known_to_both(results):
    assert [result["primary"] for result in results] == [True, False]
    for result in results:
        assert result["agreed"] == {"process": 0, "list": [1, 2], "text": "x" * 5000}
        assert result["nothing"] is None


def test_arrays_of_process_0_reach_both(results):
    for result in results:
        assert result["broadcast"] == [0.0, 1.0, 2.0]
        assert result["read"] == {"layer": {"kernel": ["float32", [[7.0] * 3] * 2], "count": ["int32", [5]]}}


def test_an_error_of_one_is_raised_on_both(results):
    assert results[0]["agree"] == ["ValueError", "broken on 0"]
    assert results[1]["agree"] == ["ProcessError", "Process 0 failed: broken on 0"]
    assert results[0]["raise_on_all"] == ["ProcessError", "Process 1 failed: broken on 1"]
    assert results[1]["raise_on_all"] == ["ValueError", "broken on 1"]


def test_a_mapped_batch_of_any_size_returns_all_rows_on_both(results):
    for result in results:
        for n, rows in zip((8, 5, 1), result["mapped"], strict=True):
            batch = np.arange(2.0 * n).reshape(n, 2)
            np.testing.assert_array_equal(rows["twice"], 2 * batch)
            np.testing.assert_array_equal(rows["sum"], batch.sum(axis=1))


def test_a_signal_to_one_stops_both_before_the_same_batch(results):
    assert results[0]["stopped"] == [4, 143, 0, 143]
    assert results[1]["stopped"] == [4, 143, 143, 143]


def test_a_process_alone_agrees_with_itself():
    assert parallel.agree(lambda: (1, {"a": None})) == [1, {"a": None}]
    with pytest.raises(ValueError, match="broken"):
        parallel.agree(lambda: (_ for _ in ()).throw(ValueError("broken")))
    np.testing.assert_array_equal(parallel.broadcast(np.arange(2)), [0, 1])


def test_a_process_that_differs_is_named_on_all(results):
    first, other = (each["check_same"] for each in results)
    said = f"It differs from process 0 in rate: 0.2 here, 0.1 on process 0; data: {'x' * 100} here,  on process 0; "
    said += "a: None here, 1 on process 0. All must run the same."
    assert other == ["ValueError", said]
    assert first == ["ProcessError", f"Process 1 failed: {said}"]
