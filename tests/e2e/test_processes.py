"""A run of several processes, over gloo, as on a pod: real command lines, one after the other and side by side."""

import signal
import time

import numpy as np
import pytest
from PIL import Image

from e2e.conftest import TINY, finished
from e2e.test_train import assert_same_model, losses, metrics, wait_for

pytestmark = pytest.mark.slow

# Adam divides by the root of tiny second moments in the first steps: rounding shows, at most as a few steps of lr.
ATOL = 1e-5


def assert_same_run(folder, other):
    assert losses(folder) == pytest.approx(losses(other), rel=1e-5)
    assert_same_model(folder, other, lambda a, b: np.testing.assert_allclose(a, b, atol=ATOL))


def grid(folder):
    with Image.open(folder / "samples" / "step_00000012.png") as picture:
        return np.asarray(picture).astype(int)


def test_a_run_is_the_same_on_one_device_four_and_two_processes_of_two(run, run_processes, trained, tmp_path):
    drawing = (*TINY, "--config.train.sample_every=12")
    run("train.py", *drawing, f"--workdir={tmp_path / '1x4'}", devices=4)
    primary, other = run_processes("train.py", *drawing, f"--workdir={tmp_path / '2x2'}")
    assert "4 cpu in 2 processes" in primary
    assert "step 12" not in other
    assert len(metrics(tmp_path / "2x2")) == 6
    for folder in (tmp_path / "1x4", tmp_path / "2x2"):
        assert_same_run(folder, trained)
    assert np.abs(grid(tmp_path / "1x4") - grid(tmp_path / "2x2")).max() <= 1
    assert grid(tmp_path / "2x2").std() > 10


def test_a_run_goes_on_with_other_devices_processes_and_microbatches(run, run_processes, trained, tmp_path):
    command = ("train.py", *TINY, f"--workdir={tmp_path}")
    run(*command, "--config.train.num_steps=4", devices=4)
    primary, _ = run_processes(*command, "--config.train.num_steps=8")
    assert "Continuing from step 4" in primary
    assert "Continuing from step 8" in run(*command, "--config.train.microbatches=4")
    assert_same_run(tmp_path, trained)


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_ends_all_at_the_same_step(start_processes, run_processes, run, tmp_path, asked):
    endless = (*TINY, f"--workdir={tmp_path}", "--config.train.checkpoint_every=1000000")
    processes = start_processes("train.py", *endless, "--config.train.num_steps=1000000")
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and metrics(tmp_path), processes[0])
    processes[asked].send_signal(signal.SIGTERM)
    primary, _ = (finished(process, 143) for process in processes)
    (stopped,) = (int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert f"Stopped at step {stopped}, saved in {tmp_path}/checkpoints" in primary
    primary, _ = run_processes("train.py", *endless, f"--config.train.num_steps={stopped + 2}")
    assert f"Continuing from step {stopped}" in primary


@pytest.mark.parametrize("lost", [0, 1])
def test_the_loss_of_a_process_ends_the_other(start_processes, run_processes, trained, tmp_path, lost):
    command = ("train.py", *TINY, f"--workdir={tmp_path}")
    processes = start_processes(*command, "--config.train.num_steps=1000000", "--heartbeat_timeout_s=20")
    wait_for(lambda: (tmp_path / "checkpoints" / "4").exists(), processes[0])
    processes[lost].kill()
    begin = time.monotonic()
    output, _ = processes[1 - lost].communicate(timeout=60)
    print(f"noticed after {time.monotonic() - begin:.1f} s")
    processes[lost].communicate()
    assert processes[1 - lost].returncode not in (0, None)
    assert "Lost another process" in output or "another task died" in output  # ours, or JAX's own


def test_what_is_wrong_for_one_process_is_said_by_all(run_processes, trained, tmp_path):
    before = (trained / "config.json").read_bytes()
    changed = (*TINY, f"--workdir={trained}", "--config.optim.lr=0.5")
    primary, other = run_processes("train.py", *changed, code=1)
    assert "train.py: " in primary
    assert "optim.lr: 0.001 -> 0.5" in primary
    assert "Process 0 failed: " in other
    assert "optim.lr: 0.001 -> 0.5" in other
    assert (trained / "config.json").read_bytes() == before
    for output in run_processes("train.py", *TINY, f"--workdir={tmp_path}", "--config.train.batch_size=10", code=1):
        assert "train.batch_size=10 must be a multiple of 4 devices; try 8" in output


def test_a_coordinator_that_is_not_there_is_said_in_time(run, tmp_path):
    alone = ("--coordinator_address=localhost:1", "--num_processes=2", "--process_id=1", "--start_timeout_s=3")
    output = run("train.py", *TINY, f"--workdir={tmp_path}", *alone, code=1)
    assert "Process 1 of 2 did not meet the others at localhost:1 within 3 s" in output
