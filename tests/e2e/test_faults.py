"""What goes wrong while training: kills, a full disk, a second run in the same folder."""

import os
import random
import resource
import time

import pytest
from PIL import Image

from e2e.conftest import TINY, finished
from e2e.test_train import assert_same_model, losses, metrics, wait_for

UNFINISHED = "*.orbax-checkpoint-tmp*"


@pytest.mark.slow
def test_twenty_kills_in_a_row_end_in_the_same_bits(start, run, tmp_path):
    """At random moments of training, every second one while a checkpoint is being written."""
    longer = (*TINY, "--config.train.num_steps=600", "--config.train.checkpoint_every=10", "--config.train.keep=2")
    run("train.py", *longer, f"--workdir={tmp_path / 'through'}")
    folder, rng, torn = tmp_path / "run", random.Random(0), 0
    checkpoints, log = folder / "checkpoints", folder / "metrics.jsonl"
    for i in range(20):
        log.unlink(missing_ok=True) if i == 0 else os.utime(log, (0, 0))
        process = start("train.py", *longer, f"--workdir={folder}")
        wait_for(lambda: log.exists() and log.stat().st_mtime > 0, process)  # training begins
        if i % 2:
            time.sleep(rng.uniform(0.0, 1.0))
        else:
            while not list(checkpoints.glob(UNFINISHED)) and process.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.05))
        process.kill()
        output, _ = process.communicate()
        assert "Finished" not in output
        torn += bool(list(checkpoints.glob(UNFINISHED)))
    assert torn >= 5
    run("train.py", *longer, f"--workdir={folder}")
    assert_same_model(folder, tmp_path / "through")
    assert losses(folder) == losses(tmp_path / "through")
    assert not list(checkpoints.glob(UNFINISHED))


@pytest.mark.slow
@pytest.mark.parametrize("on_failed_save", ["continue", "stop"])
def test_a_disk_that_takes_no_checkpoint_is_survived(start, run, tmp_path, on_failed_save):
    longer = (*TINY, f"--workdir={tmp_path}", "--config.train.keep=1", "--config.train.num_steps=1000000")
    process = start("train.py", *longer, f"--config.train.on_failed_save={on_failed_save}")
    checkpoints = tmp_path / "checkpoints"
    wait_for(lambda: (checkpoints / "4").exists(), process)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (30_000, hard))  # bytes a file: the weights have more
    said = ""
    while "was not saved" not in said:
        said = process.stdout.readline()
        assert said, "it ended"
    assert "was not saved: File too large" in said
    kept = [int(path.name) for path in checkpoints.glob("[0-9]*") if path.name.isdecimal()]
    assert kept
    if on_failed_save == "stop":
        assert "was not saved: File too large" in finished(process, 1)  # the last try
    else:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        wait_for(lambda: metrics(tmp_path)[-1]["step"] > max(kept) + 40, process)
        process.terminate()
        assert "Stopped at step" in finished(process, 143)
    (last,) = (int(path.name) for path in checkpoints.glob("[0-9]*") if path.name.isdecimal())
    assert (last == max(kept)) == (on_failed_save == "stop")
    assert "Finished" in run("train.py", *longer, f"--config.train.num_steps={last + 1}")


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(start, run, tmp_path):
    command = (*TINY, f"--workdir={tmp_path}", "--config.train.num_steps=1000000")
    first = start("train.py", *command)
    wait_for(lambda: (tmp_path / "metrics.jsonl").exists() and metrics(tmp_path), first)
    before = (tmp_path / "config.json").read_bytes()
    output = run("train.py", *command, "--config.train.keep=9", code=1)
    assert f"{tmp_path} is in use by another run, process {first.pid} on " in output
    assert (tmp_path / "config.json").read_bytes() == before
    wait_for(lambda: list((tmp_path / "checkpoints").glob("[0-9]*[0-9]")), first)
    assert "Images: " in run("sample.py", f"--workdir={tmp_path}", "--num_samples=2")  # only reads
    first.kill()
    first.communicate()
    last = max(row["step"] for row in metrics(tmp_path)) + 2
    assert "Finished" in run("train.py", *command, f"--config.train.num_steps={last}")


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_images_alone(run, tmp_path):
    """And what it was trained on is no test split."""
    for i in range(60):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    folder = tmp_path / "run"
    own = ("--config.data.name=image_folder", f"--config.data.data_dir={tmp_path}", f"--workdir={folder}")
    run("train.py", *TINY, *own)
    longer = (*TINY, *own, "--config.train.num_steps=14")
    for i in range(30):
        (tmp_path / f"{i}.png").rename(tmp_path / f"{i}.away")
    output = run("train.py", *longer, code=1)
    assert f"{folder} holds a run on other images: number of images: 60 -> 30; " in output
    for i in range(30):
        (tmp_path / f"{i}.away").rename(tmp_path / f"{i}.png")
    assert "Finished at step 14" in run("train.py", *longer)
    output = run("evaluate.py", f"--workdir={folder}", "--metrics=bpd", code=1)
    assert "has no split 'test'; train with data.holdout=0.1 to keep a tenth of it out" in output
