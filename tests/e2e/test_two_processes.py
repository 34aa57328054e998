"""Two real processes train, draw grids, sample and evaluate; what is periodic happens three times."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from e2e.conftest import TINY
from e2e.test_sample import assert_same_images, load
from e2e.test_train import losses, metrics

EVERY_FOUR = (
    "--config.train.sample_every=4", "--config.train.eval_every=4", "--config.train.eval_metrics=('bpd_fast',)",
    "--config.train.eval_samples=8",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained_by_two(run_processes, tmp_path_factory):
    """The work folder of a run of two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("two") / "run"
    return folder, run_processes("train.py", *TINY, *EVERY_FOUR, f"--workdir={folder}", devices=1)


def test_grids_scores_and_checkpoints_are_made_each_time(trained_by_two, trained):
    folder, (primary, other) = trained_by_two
    assert "2 cpu in 2 processes" in primary
    assert f"Finished at step 12, saved in {folder}/checkpoints" in primary
    assert "step 12" not in other
    pictures = [np.asarray(Image.open(folder / "samples" / f"step_{step:08d}.png")) for step in (4, 8, 12)]
    grids = [picture[60:] for picture in pictures]  # below the title, which names the step
    assert all(grid.std() > 10 for grid in grids)
    assert len({grid.tobytes() for grid in grids}) == 3
    scores = {row["step"]: row["bpd_fast"] for row in metrics(folder) if "bpd_fast" in row}
    assert list(scores) == [4, 8, 12]
    assert len(set(scores.values())) == 3
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["12", "4", "8"]
    reports = {row["step"]: row["loss"] for row in metrics(folder) if "loss" in row}
    assert reports == pytest.approx(losses(trained), rel=1e-5)


@pytest.mark.slow
def test_two_draw_the_images_of_one_also_where_only_the_first_has_the_folder(
    trained_by_two, run, run_processes, tmp_path
):
    folder, _ = trained_by_two
    drawing = ("sample.py", "--num_samples=7", "--batch_size=3")
    run(*drawing, f"--workdir={folder}", f"--out={tmp_path / 'one.npz'}")
    each = ([f"--workdir={folder}"], [f"--workdir={tmp_path / 'not there'}"])
    run_processes(*drawing, f"--out={tmp_path / 'two.npz'}", devices=1, each=each)
    assert_same_images(load(tmp_path / "two.npz"), load(tmp_path / "one.npz"))
    assert not (tmp_path / "not there").exists()


@pytest.mark.slow
def test_two_measure_the_scores_of_one(trained_by_two, run, run_processes, tmp_path):
    measuring = ("evaluate.py", "--metrics=bpd,bpd_fast,fd_classifier", "--num_images=7", "--num_samples=30")
    for name, command in (("one", run), ("two", lambda *arguments: run_processes(*arguments, devices=1))):
        shutil.copytree(trained_by_two[0], tmp_path / name)
        command(*measuring, f"--workdir={tmp_path / name}")
    one, two = (
        {entry["name"]: entry["value"] for entry in json.loads((tmp_path / name / "tables/metrics.json").read_text())}
        for name in ("one", "two")
    )
    assert one.keys() == {"bits/dim", "bits/dim, estimated", "fd_classifier@30"}
    assert two == pytest.approx(one, rel=1e-4)
