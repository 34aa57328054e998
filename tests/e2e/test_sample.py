import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.images import labelled_grid
from e2e.conftest import TINY


@pytest.fixture(scope="module")
def drawn(run, trained, tmp_path_factory):
    """Seven images, which no batch of four divides."""
    path = tmp_path_factory.mktemp("drawn") / "seven.npz"
    output = run("sample.py", f"--workdir={trained}", "--num_samples=7", "--batch_size=4", f"--out={path}")
    assert str(path) in output
    return path


def load(path):
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0"]
        return arrays["arr_0"]


def assert_same_images(images, others):
    """To float rounding, which may tip a pixel over to the next of 256 values."""
    assert np.abs(images.astype(int) - others.astype(int)).max() <= 1


def test_the_file_is_what_published_evaluators_read(drawn):
    images = load(drawn)
    assert (images.dtype, images.shape) == (np.uint8, (7, 8, 8, 1))
    assert images.std() > 10  # not blank
    assert len({image.tobytes() for image in images}) == 7
    with Image.open(drawn.with_suffix(".png")) as picture:
        assert picture.width >= 400
        expected = labelled_grid(images, title="Samples: trained, step 12, ema weights, seed 0")[..., 0]
        np.testing.assert_array_equal(np.asarray(picture), expected)
    assert sorted(path.name for path in drawn.parent.iterdir()) == ["seven.npz", "seven.png"]


@pytest.mark.parametrize(
    ("batch_size", "devices"),
    [pytest.param(7, 1, marks=pytest.mark.slow), (3, 1), pytest.param(5, 4, marks=pytest.mark.slow)],
)
def test_an_image_depends_on_seed_and_index_alone(run, trained, drawn, tmp_path, batch_size, devices):
    path = tmp_path / "again.npz"
    run(
        "sample.py",
        f"--workdir={trained}",
        "--num_samples=7",
        f"--batch_size={batch_size}",
        f"--out={path}",
        devices=devices,
    )
    assert_same_images(load(path), load(drawn))


@pytest.mark.slow
def test_seed_weights_and_step_make_other_images(run, trained, drawn, tmp_path):
    for i, choice in enumerate(("--seed=1", "--noema", "--step=4")):
        path = tmp_path / f"{i}.npz"
        run("sample.py", f"--workdir={trained}", "--num_samples=7", "--batch_size=4", choice, f"--out={path}")
        assert not np.array_equal(load(path), load(drawn))


@pytest.mark.slow
def test_samples_of_another_clip_are_other_samples(run, trained, tmp_path):
    """The file's name, what may be continued and what scores remember depend on it."""
    folder = shutil.copytree(trained, tmp_path / "run")
    run("sample.py", f"--workdir={folder}", "--num_samples=7")
    config = json.loads((folder / "config.json").read_text())
    assert "Finished" in run("train.py", *TINY, f"--workdir={folder}", "--config.sample.clip=False")
    config["sample"]["clip"] = False
    assert json.loads((folder / "config.json").read_text()) == config
    output = run("sample.py", f"--workdir={folder}", "--num_samples=7")
    assert "there already" not in output
    clipped, unclipped = (
        load(folder / "samples" / f"step12_ema_seed0{clip}_7.npz") for clip in ("", "_noclip")
    )  # fmt: skip
    assert not np.array_equal(clipped, unclipped)
    run("evaluate.py", f"--workdir={folder}", "--metrics=fd_classifier", "--num_samples=7")
    (entry,) = json.loads((folder / "tables" / "metrics.json").read_text())
    assert entry["settings"]["samples"]["clip"] is False
    assert "there already" in run("sample.py", f"--workdir={folder}", "--num_samples=7")


@pytest.mark.slow
def test_a_sampler_is_chosen_by_flags(run, trained, drawn, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    chosen = ("--sampler=dpm_solver_2m", "--steps=4")
    run("sample.py", f"--workdir={folder}", "--num_samples=7", *chosen)
    images = load(folder / "samples" / "step12_ema_seed0_dpm_solver_2m4_7.npz")
    assert images.std() > 10
    assert not np.array_equal(images, load(drawn))
    run("evaluate.py", f"--workdir={folder}", "--metrics=fd_classifier", "--num_samples=7", *chosen)
    (entry,) = json.loads((folder / "tables" / "metrics.json").read_text())
    of_samples = entry["settings"]["samples"]
    assert (of_samples["sampler"], of_samples["steps"]) == ("dpm_solver_2m", 4)
    output = run("sample.py", f"--workdir={folder}", "--sampler=ddim", "--steps=11", code=1)
    assert "sample.steps=11 must be at most the 10 timesteps" in output


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_images(start, run, trained, tmp_path):
    arguments = (f"--workdir={trained}", "--num_samples=400", "--batch_size=2")
    process = start("sample.py", *arguments, f"--out={tmp_path / 'stopped.npz'}")
    count = tmp_path / "stopped.partial.json"
    while not count.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143, output
    done = json.loads(count.read_text())["done"]
    other = run("sample.py", *arguments, "--seed=1", f"--out={tmp_path / 'stopped.npz'}", code=1)
    assert "holds what another command has not finished" in other
    assert f"Stopped after {done} of 400 images" in output
    output = run("sample.py", *arguments, f"--out={tmp_path / 'stopped.npz'}")
    assert f"Continuing after {done} of 400 images" in output
    run("sample.py", *arguments, f"--out={tmp_path / 'through.npz'}")
    np.testing.assert_array_equal(load(tmp_path / "stopped.npz"), load(tmp_path / "through.npz"))
    assert not count.exists()
    assert "there already" in run("sample.py", *arguments, f"--out={tmp_path / 'stopped.npz'}")


def test_what_is_wrong_is_said_in_a_sentence(run, trained, tmp_path):
    assert "is no work folder" in run("sample.py", f"--workdir={tmp_path}", code=1)
    assert "there are [4, 8, 12]" in run("sample.py", f"--workdir={trained}", "--step=5", code=1)
    assert not (trained / "samples").exists()


@pytest.mark.slow
def test_the_timesteps_that_were_found_are_taken(run, trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    output = run("ddpm_jax.cli.schedule", f"--workdir={folder}", "--steps=3,5", "--num_images=6")
    file = folder / "tables" / "schedules_step12_ema_train_6_seed0.json"
    assert str(file) in output
    run("sample.py", f"--workdir={folder}", "--num_samples=3", f"--timesteps={file}", "--steps=5", "--sampler=ddim")
    (samples,) = (folder / "samples").glob("step12_ema_seed0_ddim5_timesteps-*_3.npz")
    assert load(samples).std() > 10
