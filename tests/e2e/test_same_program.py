"""Processes that differ are refused before training begins, and by the doctor."""

import os
import shutil
import socket

import numpy as np
import pytest
from PIL import Image

from e2e.conftest import ROOT, TINY, finished

ONE = ("--config.train.num_steps=1",)


def refused(start_processes, folder, *each):
    """What both print of a training that is refused on both."""
    processes = start_processes("train.py", *TINY, *ONE, f"--workdir={folder}", each=each, devices=1)
    outputs = [finished(process, 1) for process in processes]
    assert not folder.exists()
    assert "train.py: Process 1 failed: It differs from process 0 in " in outputs[0]
    return outputs[1]


def test_settings(start_processes, tmp_path):
    other = ("--config.optim.lr=0.5", "--config.train.seed=3", "--config.data.memory_limit_gib=1.0")
    said = refused(start_processes, tmp_path / "run", (), other)
    expected = "config.optim.lr: 0.5 here, 0.001 on process 0; config.train.seed: 3 here, 0 on process 0. All must"
    assert f"train.py: It differs from process 0 in {expected} run the same." in said


def write_images(folder, brightness):
    for i in range(8):
        (folder / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), brightness + i, np.uint8)).save(folder / "a" / f"{i}.png")
    return ("--config.data.name=image_folder", f"--config.data.data_dir={folder}")


@pytest.mark.slow
def test_images(start_processes, tmp_path):
    each = write_images(tmp_path / "first", 10), write_images(tmp_path / "second", 100)
    assert "It differs from process 0 in contents: " in refused(start_processes, tmp_path / "run", *each)
    assert write_images(tmp_path / "third", 10)  # the same, elsewhere
    each = each[0], write_images(tmp_path / "third", 10)
    processes = start_processes("train.py", *TINY, *ONE, f"--workdir={tmp_path / 'run'}", each=each, devices=1)
    assert ["Finished at step 1" in finished(process) for process in processes] == [True, False]


@pytest.mark.slow
def test_code(start_afresh, tmp_path):
    for name in ("ddpm_jax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, symlinks=True)
    shutil.copy(ROOT / "train.py", tmp_path / "copy")
    with (tmp_path / "copy" / "ddpm_jax" / "training.py").open("a") as file:
        file.write("# changed\n")
    copy = os.path.relpath(tmp_path / "copy" / "train.py", ROOT)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
    both = (*TINY, *ONE, f"--workdir={tmp_path / 'run'}", address, "--num_processes=2")
    first, second = (start_afresh(script, *both, f"--process_id={i}") for i, script in enumerate(("train.py", copy)))
    assert "It differs from process 0 in code training.py: " in finished(second, 1)
    assert "Process 1 failed" in finished(first, 1)


def test_the_doctor_compares_settings(start_processes, tmp_path):
    each = (), ("--config.optim.lr=0.5",)
    outputs = [
        finished(process, 1) for process in start_processes("ddpm_jax.doctor", "--config=digits", each=each, devices=1)
    ]
    assert all("has config.optim.lr 0.5, process 0 (" in output for output in outputs)


def test_the_doctor_says_what_is_wrong_with_the_data(run):
    output = run("ddpm_jax.doctor", "--config=digits", "--config.data.split=validation", code=1)
    assert "WRONG: digits has the splits train, test, all, and no 'validation'." in output
