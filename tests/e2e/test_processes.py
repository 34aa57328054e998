"""A run of several processes, over gloo, as on a pod: real command lines, one after the other and side by side."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from e2e.conftest import TINY, finished
from e2e.test_sample import assert_same_images, load
from e2e.test_train import assert_same_model, losses, metrics, wait_for

pytestmark = pytest.mark.slow

# Adam divides by the root of tiny second moments in the first steps: rounding shows, at most as a few steps of lr.
ATOL = 1e-5


def assert_same_run(folder, other):
    assert losses(folder) == pytest.approx(losses(other), rel=1e-5)
    assert_same_model(folder, other, lambda a, b: np.testing.assert_allclose(a, b, atol=ATOL))


def grid(folder):
    with Image.open(folder / "samples" / "step_00000012.png") as picture:
        return np.asarray(picture).astype(int)[60:]  # below the title, which names the folder


def test_a_run_is_the_same_on_one_device_four_and_two_processes_of_two(run, run_processes, trained, tmp_path):
    drawing = (*TINY, "--config.train.sample_every=12")
    run("train.py", *drawing, f"--workdir={tmp_path / '1x4'}", devices=4)
    primary, other = run_processes("train.py", *drawing, f"--workdir={tmp_path / '2x2'}", "--config.train.profile=3:4")
    assert "4 cpu in 2 processes" in primary
    assert "step 12" not in other
    assert len(metrics(tmp_path / "2x2")) == 6
    for process in ("process_0", "process_1"):
        assert len(list((tmp_path / "2x2" / "profile" / process).rglob("*.xplane.pb"))) == 1
    for folder in (tmp_path / "1x4", tmp_path / "2x2"):
        assert_same_run(folder, trained)
    assert np.abs(grid(tmp_path / "1x4") - grid(tmp_path / "2x2")).max() <= 1
    assert grid(tmp_path / "2x2").std() > 10


def test_two_processes_learn_the_importance_of_timesteps_as_one_does(run, run_processes, tmp_path):
    command = ("train.py", *TINY, "--config.train.timesteps=importance", "--config.diffusion.num_timesteps=3")
    run(*command, f"--workdir={tmp_path / '1x1'}")
    run_processes(*command, f"--workdir={tmp_path / '2x2'}")
    assert_same_run(tmp_path / "2x2", tmp_path / "1x1")


def test_a_run_goes_on_with_other_devices_processes_and_microbatches(run, run_processes, trained, tmp_path):
    command = ("train.py", *TINY, f"--workdir={tmp_path}")
    run(*command, "--config.train.num_steps=4", devices=4)
    primary, other = run_processes(*command, "--config.train.num_steps=8")
    assert "Continuing from step 4" in primary
    told = "From here on it is trained with other than before: devices: "
    assert f"{told}4 cpu in 1 process -> 4 cpu in 2 processes.\n" in primary
    assert told not in other
    output = run(*command, "--config.train.microbatches=4")
    assert "Continuing from step 8" in output
    assert f"{told}4 cpu in 2 processes -> 1 cpu in 1 process.\n" in output
    parts = json.loads((tmp_path / "trained_with.json").read_text())
    assert [(part["from_step"], part["devices"][0]) for part in parts] == [(0, "4"), (4, "4"), (8, "1")]
    assert told not in run(*command)  # there is nothing left to train
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


def test_two_processes_draw_what_one_draws(run, run_processes, trained, tmp_path):
    drawing = ("sample.py", f"--workdir={trained}", "--num_samples=7", "--batch_size=3")
    run(*drawing, f"--out={tmp_path / 'one.npz'}")
    primary, other = run_processes(*drawing, f"--out={tmp_path / 'two.npz'}")
    assert "4 cpu in 2 processes" in primary
    assert "two.npz" not in other
    assert_same_images(load(tmp_path / "two.npz"), load(tmp_path / "one.npz"))
    figure = ("sample.py", f"--workdir={trained}", "--mode=shared_latents", "--num_samples=2")  # other parameters, too
    run(*figure, f"--out={tmp_path / 'one.png'}")
    run_processes(*figure, f"--out={tmp_path / 'two.png'}")
    one, two = (np.asarray(Image.open(tmp_path / name)) for name in ("one.png", "two.png"))
    assert_same_images(two, one)


def test_two_processes_measure_what_one_measures(run, run_processes, trained, tmp_path):
    measuring = ("--metrics=bpd,bpd_fast,fd_classifier,pr_classifier", "--num_images=7", "--num_samples=30")
    found = {}
    for name, command in (("one", run), ("two", run_processes)):
        shutil.copytree(trained, tmp_path / name)
        command("evaluate.py", f"--workdir={tmp_path / name}", *measuring)
        found[name] = json.loads((tmp_path / name / "tables" / "metrics.json").read_text())
    one, two = ({entry["name"]: entry["value"] for entry in found[name]} for name in ("one", "two"))
    assert len(one) >= 5
    assert two == pytest.approx(one, rel=1e-4)


def test_scores_during_training_are_those_of_one_process(run, run_processes, tmp_path):
    scored = (*TINY, "--config.train.eval_every=12", "--config.train.eval_metrics=('fd_classifier','bpd_fast')",
              "--config.train.eval_samples=20")  # fmt: skip
    run("train.py", *scored, f"--workdir={tmp_path / 'one'}")
    run_processes("train.py", *scored, f"--workdir={tmp_path / 'two'}")
    one, two = (metrics(tmp_path / name)[-1] for name in ("one", "two"))
    assert two["bpd_fast"] == pytest.approx(one["bpd_fast"], rel=1e-4)
    assert two["fd_classifier@20"] == pytest.approx(one["fd_classifier@20"], rel=1e-2)  # of pixels that may tip over


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_to_one_process_stops_sampling_on_all(start_processes, run, trained, tmp_path, asked):
    drawing = ("sample.py", f"--workdir={trained}", "--num_samples=400", "--batch_size=4")
    processes = start_processes(*drawing, f"--out={tmp_path / 'stopped.npz'}")
    wait_for((tmp_path / "stopped.partial.json").exists, processes[0])
    processes[asked].send_signal(signal.SIGTERM)
    primary, _ = (finished(process, 143) for process in processes)
    done = json.loads((tmp_path / "stopped.partial.json").read_text())["done"]
    assert f"Stopped after {done} of 400 images" in primary
    assert f"Continuing after {done} of 400 images" in run(*drawing, f"--out={tmp_path / 'stopped.npz'}")
    run(*drawing, f"--out={tmp_path / 'through.npz'}")
    assert_same_images(load(tmp_path / "stopped.npz"), load(tmp_path / "through.npz"))


@pytest.mark.parametrize("asked", [0, 1])
def test_a_signal_during_an_evaluation_saves_and_leaves(start_processes, trained, tmp_path, asked):
    scored = (*TINY, "--config.train.eval_every=2", "--config.train.eval_metrics=('bpd_fast',)",
              "--config.train.eval_samples=355", "--config.sample.batch_size=4")  # fmt: skip
    processes = start_processes("train.py", *scored, f"--workdir={tmp_path}", "--config.train.num_steps=100000")
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and metrics(tmp_path), processes[0])  # step 2: it begins
    processes[asked].send_signal(signal.SIGTERM)
    primary, _ = (finished(process, 143) for process in processes)
    assert "Stopped at step" in primary
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


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
    if lost == 1:  # of a lost process 0, JAX may be the first to know
        assert processes[0].returncode == 1
        assert "Lost another process, number 1" in output


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
