import re

import jax
import pytest

from ddpm_jax import load
from e2e.conftest import TINY

pytestmark = pytest.mark.slow


def test_a_dry_run_says_all_and_writes_nothing(run, trained, tmp_path):
    output = run("train.py", *TINY, f"--workdir={tmp_path / 'run'}", "--dry_run", devices=2)
    assert not (tmp_path / "run").exists()
    assert '"batch_size": 8' in output
    assert "Devices: 2 cpu in 1 process." in output
    assert "Batch: 8 images, 4 on each device." in output
    assert "Data: 1,442 images of (8, 8, 1), in memory" in output
    count = sum(leaf.size for leaf in jax.tree.leaves(load(trained).params))
    assert f"Network: {count:,} parameters." in output
    (arguments,) = re.findall(r"([\d.]+) MiB of arguments", output)
    # Parameters, their average and Adam's two moments; a few counters and 4 images of 64 bytes besides.
    assert float(arguments) == pytest.approx(4 * 4 * count / 2**20, abs=0.06)


def test_a_dry_run_without_data_says_the_rest_and_fails(run, tmp_path):
    missing = ("--config.data.name=image_folder", f"--config.data.data_dir={tmp_path / 'missing'}")
    output = run("train.py", *TINY, *missing, f"--workdir={tmp_path / 'run'}", "--dry_run", code=1)
    assert "Data: cannot be opened" in output
    assert "floating-point operations a step" in output
    assert re.search(r"train\.py: data_dir=.*missing' does not exist", output)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(run, trained):
    output = run("train.py", *TINY, f"--workdir={trained}", "--config.optim.lr=0.5", "--dry_run", code=1)
    assert "optim.lr: 0.001 -> 0.5" in output


def test_a_target_is_for_dry_runs_alone(run, tmp_path):
    output = run("train.py", *TINY, f"--workdir={tmp_path / 'run'}", "--target=v5e:2x4", code=1)
    assert "give --dry_run, too" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tpu_compiler")
def test_a_dry_run_for_a_tpu_needs_none(run, tmp_path):
    output = run("train.py", *TINY, f"--workdir={tmp_path / 'run'}", "--dry_run", "--target=v5e:2x4")
    assert "Target: v5e:2x4, 8 chips (TPU v5 lite) on 1 host." in output
    assert "Batch: 8 images, 1 on each chip." in output
    for name in ("The train step", "The sampler"):
        assert re.search(rf"^{name}: compiled in \d+ s\. It fits: .* of 16\.00 GiB on each chip", output, re.MULTILINE)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("tpu_compiler")
def test_a_dry_run_fails_where_the_batch_does_not_fit_the_chips(run, tmp_path):
    arguments = (*TINY, "--config.train.batch_size=1048576")
    output = run("train.py", *arguments, f"--workdir={tmp_path / 'run'}", "--dry_run", "--target=v5e:1x1", code=1)
    assert "The train step: THIS DOES NOT FIT. RESOURCE_EXHAUSTED" in output
    assert "The sampler: compiled" in output
