import json
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from ddpm_jax import load
from e2e.conftest import ROOT, TINY


def assert_same_model(folder, other, compare=np.testing.assert_array_equal):
    for weights in ("raw", "ema"):
        ours, theirs = (load(path, weights=weights) for path in (folder, other))
        assert ours.step == theirs.step
        jax.tree.map(compare, ours.params, theirs.params)


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return {row["step"]: row["loss"] for row in metrics(folder)}


def wait_for(condition, process):
    for _ in range(6000):
        if condition():
            return
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("it did not come to that within five minutes")


def test_a_work_folder_holds_everything_of_a_run(trained):
    assert sorted(path.name for path in trained.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "data.json",
        "metrics.jsonl",
        "tensorboard",
        "trained_with.json",
    ]
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["12", "4", "8"]
    assert json.loads((trained / "config.json").read_text())["train"]["num_steps"] == 12
    rows = metrics(trained)
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    for row in rows:
        assert 0.1 < row["loss"] < 3.0
        quarters = [row[f"loss_quarter_{i}"] for i in (1, 2, 3, 4)]
        assert min(filter(None, quarters)) <= row["loss"] <= max(filter(None, quarters))
        assert row["grad_norm"] > 0
        assert row["param_norm"] > 1
        assert row["lr"] == pytest.approx((row["step"] - 1) * 1e-3 / 100, rel=1e-4)  # warm-up, counted from 0
    assert rows[-1]["images_per_s"] == pytest.approx(8 * rows[-1]["steps_per_s"])
    assert any((trained / "tensorboard").iterdir())


@pytest.mark.slow
def test_the_same_command_again_continues_to_the_same_bits(run, trained, tmp_path):
    folder = tmp_path / "run"
    run("train.py", *TINY, f"--workdir={folder}", "--config.train.num_steps=6")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 99.0}\n{"step": 10, "lo')  # of steps that a kill undid, the last cut short
    output = run("train.py", *TINY, f"--workdir={folder}", "--config.train.steps_per_dispatch=2")
    assert f"Continuing from step 6 in {folder}/checkpoints" in output
    assert "From here on" not in output  # it is trained with the same
    assert_same_model(folder, trained)
    assert losses(folder) == losses(trained)
    assert "Finished at step 12" in run("train.py", *TINY, f"--workdir={folder}")


@pytest.mark.slow
def test_what_was_learned_of_timesteps_is_resumed_to_the_same_bits(run, tmp_path):
    command = ("train.py", *TINY, "--config.train.timesteps=importance", "--config.diffusion.num_timesteps=3")
    run(*command, f"--workdir={tmp_path / 'through'}")
    run(*command, f"--workdir={tmp_path / 'stopped'}", "--config.train.num_steps=7")
    run(*command, f"--workdir={tmp_path / 'stopped'}")
    assert_same_model(tmp_path / "stopped", tmp_path / "through")
    assert losses(tmp_path / "stopped")[12] == losses(tmp_path / "through")[12]


@pytest.mark.slow
def test_a_run_that_is_killed_continues_to_the_same_bits(start, run, trained, tmp_path):
    folder = tmp_path / "run"
    process = start("train.py", *TINY, f"--workdir={folder}")
    wait_for(lambda: (folder / "checkpoints" / "4").exists(), process)
    process.kill()
    process.communicate()
    run("train.py", *TINY, f"--workdir={folder}")
    assert_same_model(folder, trained)
    assert losses(folder) == losses(trained)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_leaves_and_the_run_continues_to_the_same_bits(start, run, trained, tmp_path, number, code):
    folder = tmp_path / "run"
    command = ("train.py", *TINY, f"--workdir={folder}", "--config.train.checkpoint_every=1000000")
    process = start(*command)
    wait_for((folder / "metrics.jsonl").exists, process)  # the first step is being compiled
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert f"{number.name}: finishing what is in hand, and saving" in output
    (stopped,) = (int(path.name) for path in (folder / "checkpoints").iterdir())
    assert stopped < 12
    assert f"Stopped at step {stopped}, saved in {folder}/checkpoints" in output
    run(*command)
    assert_same_model(folder, trained)


def test_a_second_ctrl_c_leaves_at_once():
    program = (
        "import os, signal, sys; from ddpm_jax.runtime.signals import StopRequest\n"
        "with StopRequest() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.exit_code == 130\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    sys.exit('still there')"
    )
    left = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert left.returncode == 130, left


@pytest.mark.slow
def test_four_devices_train_as_one_and_their_run_continues_on_one(run, trained, tmp_path):
    folder = tmp_path / "run"
    output = run("train.py", *TINY, f"--workdir={folder}", "--config.train.num_steps=8", devices=4)
    assert "4 cpu in 1 process" in output
    for step, loss in losses(folder).items():
        assert loss == pytest.approx(losses(trained)[step], rel=1e-5)
    for ours, theirs in zip(metrics(folder), metrics(trained), strict=False):
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    run("train.py", *TINY, f"--workdir={folder}")
    # Adam divides by the root of tiny second moments in the first steps: rounding shows, at most as a few steps of lr.
    assert_same_model(folder, trained, lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4))


def test_settings_that_would_make_it_another_run_are_refused_by_name(run, trained):
    before = (trained / "config.json").read_bytes()
    output = run("train.py", *TINY, f"--workdir={trained}", "--config.optim.lr=0.5", "--config.train.seed=4", code=1)
    assert "optim.lr: 0.001 -> 0.5; train.seed: 0 -> 4" in output
    assert (trained / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.optim.lrr=1"], 'Did you mean "lr" instead of "lrr"?'),
        (["--config.optim.lr=fast"], "could not convert string to float: 'fast'"),
        (["--config.train.batch_size=0"], "train.batch_size=0 must be at least 1"),
        (["--config.data.image_size=(9,8)", "--config.model.ch_mult=(1,2)"], "nearest size that can is 8x8"),
        (["--config.data.name=image_folder"], "data_dir"),
        (["--config.data.name=image_folder", "--config.data.data_dir=/nowhere"], "/nowhere"),
        (["--config.data.name=no_such_data_set"], "no_such_data_set"),
        (["--config.diffusion.schedule=cubic"], "Unknown schedule 'cubic'"),
        (["surprise"], "surprise"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_before_anything_is_written(run, tmp_path, arguments, message):
    output = run("train.py", *TINY, f"--workdir={tmp_path / 'run'}", *arguments, code=1)
    assert message in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_is_not_saved(run, tmp_path):
    folder = tmp_path / "run"
    wild = (*TINY, f"--workdir={folder}", "--config.optim.lr=1e15", "--config.train.checkpoint_every=1")
    output = run("train.py", *wild, code=1)
    assert " is nan" in output or " is inf" in output
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert f"of step {step + 1} is" in output
    assert f"The last good checkpoint is {folder}/checkpoints/{step}" in output


@pytest.mark.slow
def test_a_folder_of_images_trains_and_draws_grids(run, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(20):
        folder = tmp_path / "images" / "train" / ("even", "odd")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    images = f"--config.data.data_dir={tmp_path / 'images'}"
    shape = ("--config.data.name=image_folder", "--config.data.channels=3", "--config.data.image_size=(6,9)", images)
    run("train.py", *TINY, *shape, f"--workdir={tmp_path / 'run'}", "--config.train.sample_every=6")
    for step in (6, 12):
        with Image.open(tmp_path / "run" / "samples" / f"step_{step:08d}.png") as picture:
            assert picture.mode == "RGB"
            assert np.asarray(picture).std() > 10  # not blank
