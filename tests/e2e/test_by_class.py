"""A model with classes, from training to scores, by the command lines."""

import json

import numpy as np
import pytest

import ddpm_jax
from ddpm_jax.runs import sample_files

from .conftest import TINY

pytestmark = pytest.mark.slow  # each needs the model that it trains
BY_CLASS = (*TINY, "--config.model.num_classes=10")


@pytest.fixture(scope="module")
def by_class(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("by_class") / "run"
    run("train.py", *BY_CLASS, f"--workdir={folder}", "--config.train.sample_every=12")
    assert (folder / "samples" / "step_00000012.png").is_file()
    return folder


def test_samples_of_a_class_are_scored_by_it(run, by_class):
    asked = (f"--workdir={by_class}", "--labels=3,5", "--guidance=2", "--guidance_interval=2,8")
    said = run("evaluate.py", *asked, "--metrics=label_accuracy,bpd_fast", "--num_samples=4", "--num_images=3")
    assert "label_accuracy@4" in said
    entries = json.loads((by_class / "tables" / "metrics.json").read_text())
    settings = {entry["metric"]: entry["settings"] for entry in entries}
    assert settings["bpd_fast"]["labels"] == "of the images"
    drawn = settings["label_accuracy"]["samples"]
    assert [drawn[name] for name in ("labels", "guidance", "guidance_interval")] == ["3,5", 2.0, "2,8"]
    file = by_class / "samples" / "step12_ema_seed0_labels3-5_guidance2_t2-8_4.npz"
    assert np.load(file)["arr_0"].shape == (4, 8, 8, 1)


def test_what_the_model_cannot_do_is_refused(run, by_class):
    said = run("sample.py", f"--workdir={by_class}", "--labels=10", "--guidance_interval=5", code=1)
    assert "sample.labels='10' must be numbers in 0..9, with commas between, all or none;" in said
    assert "sample.guidance_interval=(5,) must be two timesteps of 0..9, the lower first" in said


def test_the_weaker_network_is_of_the_same_run(by_class):
    model = ddpm_jax.load(by_class)
    guided = model.sampling_with(guidance=1.0, guidance_weights="raw", guidance_step=8)
    assert (guided.weaker.step, guided.weaker.weights) == (8, "raw")
    assert guided.weaker.fingerprint == ddpm_jax.load(by_class, weights="raw", step=8).fingerprint
    assert guided.sampling_params.params is model.params
    spec = sample_files.sample_spec(guided, seed=0)
    assert spec.name == "step12_ema_seed0_labelsall_guidance1_by_step8_raw"
    assert spec.settings()["guidance_sha256"] == guided.weaker.fingerprint
    assert guided.sampling_with(guidance=0.0).sampling_params is model.params
    with pytest.raises(ValueError, match="guidance_weights='ema' of step 12 are the model's own"):
        model.sampling_with(guidance=1.0, guidance_weights="ema")


def test_a_figure_is_of_the_classes_asked_for(run, by_class):
    run(
        "sample.py",
        f"--workdir={by_class}",
        "--mode=shared_latents",
        "--labels=3",
        "--guidance=1",
        "--guidance_weights=raw",
        "--num_samples=2",
    )
    assert (by_class / "samples" / "shared_latents_step12_ema_seed0_labels3_guidance1_by_step12_raw_2.png").is_file()
