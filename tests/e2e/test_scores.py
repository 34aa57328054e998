"""evaluate.py on samples, and the paper's tables from what it leaves, with a classifier's features."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ddpm_jax import data
from e2e.conftest import TINY
from e2e.test_train import assert_same_model

pytestmark = pytest.mark.slow

POOL = 64  # width of its features
CLASSIFIER = "fd_classifier,is_classifier,kd_classifier,pr_classifier"
NAMES = ["fd_classifier", "is_classifier", "kd_classifier", "precision_classifier", "recall_classifier"]


def scores(folder):
    entries = json.loads((folder / "metrics.json").read_text())
    return {entry["name"]: entry["value"] for entry in entries}


@pytest.fixture(scope="module")
def scored(run, trained, tmp_path_factory):
    """A copy of the trained work folder in which thirty samples were scored; and what was printed."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(trained, folder)
    return folder, run("evaluate.py", f"--workdir={folder}", f"--metrics={CLASSIFIER}", "--num_samples=30")


def test_samples_are_drawn_scored_and_written_down_with_all_they_depend_on(scored):
    folder, output = scored
    assert list(scores(folder / "tables")) == [f"{name}@30" for name in NAMES]
    for name, value in scores(folder / "tables").items():
        assert f"  {name:<24} {value:.6g}" in output
    entry = json.loads((folder / "tables" / "metrics.json").read_text())[0]
    samples = entry["settings"]["samples"]
    assert (samples["step"], samples["weights"], samples["seed"], samples["count"]) == (12, "ema", 0, 30)
    assert entry["settings"]["reference"]["name"] == "digits:train"
    fingerprints = entry["settings"]["reference"]["fingerprint"], entry["settings"]["extractor"]["fingerprint"]
    assert all(fingerprint in output for fingerprint in fingerprints)
    assert entry["settings"]["rounding"].startswith("nearest of 0..255")
    assert sorted(path.name for path in (folder / "tables").iterdir()) == ["metrics.json"]


def test_what_was_measured_is_read_and_what_is_missing_is_added(run, scored):
    folder, output = scored
    before = json.loads((folder / "tables" / "metrics.json").read_text())
    again = run("evaluate.py", f"--workdir={folder}", f"--metrics={CLASSIFIER}", "--num_samples=30")
    assert [line for line in again.splitlines() if "_classifier@" in line] == [
        line for line in output.splitlines() if "_classifier@" in line
    ]
    assert json.loads((folder / "tables" / "metrics.json").read_text()) == before


def test_sample_py_s_images_given_as_a_file_get_the_same_scores(run, scored, tmp_path):
    folder, _ = scored
    (samples,) = (folder / "samples").glob("*.npz")
    run(
        "evaluate.py", f"--samples={samples}", "--reference=digits:train", f"--metrics={CLASSIFIER}",
        f"--out={tmp_path}", "--batch_size=7", devices=2,
    )  # fmt: skip
    ours, theirs = scores(folder / "tables"), scores(tmp_path)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, rel=1e-3, abs=1e-3)


def test_real_test_images_are_better_than_noisy_ones_and_those_than_noise(run, tmp_path):
    real = data.load("digits", split="test", image_size=(8, 8), channels=1, memory_limit_gib=1.0).images
    rng = np.random.default_rng(0)
    noisy = np.clip(real + rng.normal(0, 60, real.shape), 0, 255).astype(np.uint8)
    sets = {"real": real, "noisy": noisy, "noise": rng.integers(0, 256, real.shape).astype(np.uint8)}
    found = []
    for name, images in sets.items():
        np.savez(tmp_path / f"{name}.npz", images)
        out = tmp_path / name
        run("evaluate.py", f"--samples={tmp_path / name}.npz", "--reference=digits", f"--out={out}",
            "--metrics=fd_classifier")  # fmt: skip
        found.append(scores(out)["fd_classifier@355"])
    assert found[0] < found[1] / 2 < found[2] / 4


def test_seeds_are_scored_one_by_one_and_their_spread_is_said(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    output = run(
        "evaluate.py", f"--workdir={tmp_path / 'run'}", "--metrics=fd_classifier", "--num_samples=20", "--num_seeds=2"
    )
    entries = json.loads((tmp_path / "run" / "tables" / "metrics.json").read_text())
    values = [entry["value"] for entry in entries]
    assert [entry["settings"]["samples"]["seed"] for entry in entries] == [0, 1]
    assert f"{np.mean(values):.6g} ± {np.std(values, ddof=1):.2g} (deviation of 2 seeds)" in output


def test_too_few_samples_are_refused_before_they_are_drawn(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("samples"))
    arguments = ("evaluate.py", f"--workdir={tmp_path / 'run'}", "--metrics=fd_infinity_classifier")
    said = run(*arguments, "--num_samples=255", code=1)
    assert "fd_infinity_classifier needs 256 samples at least, not 255: kd_classifier has no bias" in said
    assert not (tmp_path / "run" / "samples").exists()
    assert "  fd_infinity_classifier@256 " in run(*arguments, "--num_samples=256")


def test_figure_10_ends_where_the_samples_are(run, scored):
    folder, _ = scored
    run("evaluate.py", f"--workdir={folder}", "--metrics=progressive_classifier", "--num_samples=30")
    (table,) = (folder / "tables").glob("progressive_*.json")
    rows = json.loads(table.read_text())["rows"]
    assert [row["reverse_steps"] for row in rows] == list(range(1, 11))
    assert rows[-1]["distance"] == pytest.approx(scores(folder / "tables")["fd_classifier@30"], rel=1e-3)
    with Image.open(table.with_suffix(".png")) as picture:
        assert np.asarray(picture).std() > 10  # not blank
    assert not list((folder / "tables").glob("*partial*"))


def test_statistics_in_pytorch_fid_s_layout_are_a_reference(run, scored, tmp_path):
    folder, _ = scored
    (samples,) = (folder / "samples").glob("*.npz")
    np.savez(tmp_path / "stats.npz", mu=np.zeros(POOL), sigma=np.eye(POOL))
    arguments = (f"--workdir={folder}", f"--samples={samples}", f"--reference={tmp_path / 'stats.npz'}")
    output = run("evaluate.py", *arguments, "--metrics=fd_classifier", f"--out={tmp_path}")
    assert "reference stats.npz, unknown number of images" in output
    assert scores(tmp_path)["fd_classifier@30"] > 0
    said = run("evaluate.py", *arguments, "--metrics=kd_classifier", f"--out={tmp_path}", code=1)
    assert "kd_classifier needs the reference's images, and stats.npz has statistics alone" in said


def test_the_paper_s_tables_hold_what_was_measured(run, scored, tmp_path):
    folder, _ = scored
    output = run("ddpm_jax.paper", folder, f"--out={tmp_path}")
    value = scores(folder / "tables")["fd_classifier@30"]
    assert f"| run | fd_classifier@30 | {value:.4g} (30 images, step 12) | drawn |" in output
    assert "DDPM, L_simple" not in output  # the paper's tables are about other images
    assert (tmp_path / "tables.md").read_text() in output
    (table,) = json.loads((tmp_path / "tables.json").read_text())["tables"]
    assert table["title"] == "Other scores"


def test_the_paper_s_figures_by_one_command(run, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    run("ddpm_jax.paper", tmp_path / "run", f"--out={tmp_path / 'report'}", "--figures")
    pictures = json.loads((tmp_path / "report" / "tables.json").read_text())["figures"]["run"]
    for part in ("rate_distortion", "progressive_classifier", "progressive_step", "shared_latents", "interpolate",
                 "coarse_to_fine", "neighbours"):  # fmt: skip
        assert any(part in picture for picture in pictures), part


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics=fid"], "Give a --workdir to draw samples from, or --samples"),
        (["--metrics=bpd", "--samples=digits"], "--metrics=bpd measures a model: give its --workdir"),
        (["--metrics=fid", "--samples=digits"], "need a --reference"),
        (["--metrics=fid", "--samples=digits", "--reference=digits:test"], "pt_inception-2015-12-05-6726825d.pth"),
        (["--metrics=fd_classifier", "--samples=no.npz", "--reference=digits"], "There is no file no.npz"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, arguments, message):
    assert message in run("evaluate.py", *arguments, code=1)


def test_training_logs_scores_and_stays_the_same_run(run, trained, tmp_path):
    folder = tmp_path / "run"
    metrics = ("--config.train.eval_metrics=('fd_classifier','bpd_fast')", "--config.train.eval_samples=20")
    output = run("train.py", *TINY, f"--workdir={folder}", "--config.train.eval_every=6", *metrics)
    reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = {report["step"]: report for report in reports if "bpd_fast" in report}
    assert list(found) == [6, 12]
    for step, report in found.items():
        assert report["fd_classifier@20"] > 0
        assert f"step {step}/12  bpd_fast {report['bpd_fast']:.6g}  fd_classifier@20" in output
    assert found[12]["bpd_fast"] != found[6]["bpd_fast"]
    assert_same_model(folder, trained)
    assert "Finished at step 12" in run("train.py", *TINY, f"--workdir={folder}")  # may change, as logging may
    other = (*TINY, f"--workdir={tmp_path / 'other'}", "--config.train.eval_every=6", "--config.train.eval_samples=20")
    said = run("train.py", *other, "--config.train.eval_metrics=('fdi',)", code=1)
    assert "Unknown metric 'fdi'" in said
    said = run("train.py", *other, "--config.train.eval_metrics=('fd_infinity_classifier',)", code=1)
    assert "fd_infinity_classifier needs 256 samples at least, not 20" in said
    assert not (tmp_path / "other").exists()
