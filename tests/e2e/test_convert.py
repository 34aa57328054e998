"""ddpm-convert: a trained model as a pipeline of diffusers or weights alone, and from those a work folder again."""

import numpy as np
import pytest

from ddpm_jax import load
from e2e.conftest import TINY

pytestmark = pytest.mark.slow
COMMAND = "ddpm_jax.cli.convert"


def test_what_a_pipeline_makes_draws_the_same_and_trains_on(run, trained, tmp_path):
    pipeline, again = tmp_path / "pipeline", tmp_path / "again"
    assert "Step 12, raw weights" in run(
        COMMAND, f"--workdir={trained}", "--to=diffusers", f"--out={pipeline}", "--weights=raw"
    )
    output = run(COMMAND, f"--from={pipeline}", f"--workdir={again}", "--step=8", *TINY, "--config.model.ch=64")
    assert "give ddpm-train beside that --config: --config.model.ch=32\n" in output
    for folder in (trained, again):
        run(
            "sample.py",
            f"--workdir={folder}",
            "--num_samples=4",
            "--weights=raw",
            f"--out={tmp_path}/{folder.name}.npz",
        )
    before, after = (np.load(tmp_path / f"{folder.name}.npz")["arr_0"].astype(int) for folder in (trained, again))
    assert np.abs(before - after).max() <= 1
    assert "Finished at step 12" in run("train.py", *TINY, f"--workdir={again}")
    assert load(again).step == 12


def test_weights_alone_make_a_work_folder(run, trained, tmp_path):
    weights, again = tmp_path / "weights.safetensors", tmp_path / "again"
    run(COMMAND, f"--workdir={trained}", "--to=safetensors", f"--out={weights}")
    run(COMMAND, f"--from={weights}", f"--workdir={again}")
    assert load(again).step == load(trained).step


def test_what_cannot_be_is_said_in_a_sentence(run, trained, tmp_path):
    for arguments, message in (
        ([f"--workdir={trained}"], "Give either --from=..., which makes --workdir, or --to=..., which reads it."),
        ([f"--workdir={trained}", "--to=diffusers"], "needs --out=..., the folder to write."),
        ([f"--workdir={tmp_path}/run", f"--from={tmp_path}/none"], "There is no folder"),
    ):
        output = run(COMMAND, *arguments, code=1)
        assert message in output
        assert "Traceback" not in output
