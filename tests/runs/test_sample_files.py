"""Samples on disk: whose they are decides what is there already and what is continued. The network is a stand-in."""

import os
import signal
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.runs import sample_files, trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.runtime.signals import Stopped


@pytest.fixture
def make(tiny_config, tmp_path):
    """`make("A", 0.1)` -> the model of run A, all of whose weights are 0.1."""
    experiment = make_experiment(tiny_config)

    def make(name, value):
        params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, value, leaf.dtype), experiment.abstract_params)
        return TrainedModel(experiment, params, 12, trained_model.average_name(tiny_config), tmp_path / name)

    return make


@pytest.fixture
def asked(monkeypatch):
    """The batches that were drawn, by their size; at the number `stop_at` of them a signal comes."""
    batches = []
    asked = {"batches": batches, "stop_at": None}

    def mapped_sample(_):
        def sample(params, keys, report):
            batches.append(len(keys))
            if len(batches) == asked["stop_at"]:
                os.kill(os.getpid(), signal.SIGTERM)
            brightness = jax.tree.leaves(params)[0].ravel()[0] * 255
            return np.full((len(keys), 8, 8, 1), brightness, np.uint8)

        return sample

    monkeypatch.setattr(sample_files, "mapped_sample", mapped_sample)
    return asked


def draw(model, path, *, seed=0, num_samples=6):
    sample_files.draw(model, path, num_samples=num_samples, batch_size=2, seed=seed)
    return sample_files.read(path)


def begin(model, path, asked):
    """One batch, and a stop."""
    asked["stop_at"] = len(asked["batches"]) + 1
    with pytest.raises(Stopped, match="Stopped after 2 of 6"):
        draw(model, path)


def test_a_model_s_fingerprint_is_of_its_weights(make):
    assert make("A", 0.1).fingerprint == make("B", 0.1).fingerprint
    assert len({make("A", value).fingerprint for value in (0.1, 0.1000001, 0.2)}) == 3


def test_what_one_run_began_is_not_continued_by_another(make, asked, tmp_path):
    a, b, path = make("A", 0.1), make("B", 0.2), tmp_path / "T" / "x.npz"
    begin(a, path, asked)
    with pytest.raises(ValueError, match="holds what another command has not finished, with settings"):
        draw(b, path)
    assert {*draw(a, path).ravel()} == {25}
    assert len(asked["batches"]) == 3


@pytest.mark.parametrize(
    ("value", "other", "name"),
    [(0.1, {"seed": 1}, "seed"), (0.1, {"num_samples": 5}, "shape"), (0.2, {}, "weights_sha256")],
)
def test_samples_that_are_others_are_not_there_already(make, asked, tmp_path, capsys, value, other, name):
    path = tmp_path / "x.npz"
    drawn = draw(make("A", 0.1), path)
    with pytest.raises(ValueError, match=rf"x.npz holds other samples, of {name} .+, not {name} .+: choose another"):
        draw(make("B", value), path, **other)
    np.testing.assert_array_equal(draw(make("A", 0.1), path), drawn)
    assert f"These samples are there already: {path}" in capsys.readouterr().out
    assert len(asked["batches"]) == 3


def test_a_file_that_does_not_say_whose_it_is_is_taken_by_its_name(make, asked, tmp_path):
    for name, pixels in (("older", np.zeros((6, 8, 8, 1), np.uint8)), ("foreign", np.ones((6, 8, 8, 1), np.uint8))):
        np.savez(tmp_path / f"{name}.npz", pixels)
    with zipfile.ZipFile(tmp_path / "foreign.npz", "a") as archive:
        archive.comment = b"made by somebody else"
    assert draw(make("A", 0.1), tmp_path / "older.npz").max() == 0
    assert draw(make("A", 0.1), tmp_path / "foreign.npz").max() == 1
    assert not asked["batches"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda data: data[:200] + bytes([data[200] ^ 4]) + data[201:], "arr_0.npy is not as it was written"),
        (lambda data: data[:300], "File is not a zip file"),
        (lambda _: b"", "it is empty"),
        (lambda data: data[:-4] + b"\xff\xfe\xfd\xfc", "can't decode"),  # of what it says that it holds
        (lambda data: data[:-4], "Expecting value"),
    ],
)
def test_samples_that_are_damaged_are_not_there_already(make, asked, tmp_path, damage, problem):
    path = tmp_path / "x.npz"
    draw(make("A", 0.1), path)
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"x.npz' is damaged: delete it, or choose another path .*{problem}"):
        draw(make("A", 0.1), path)
    assert path.read_bytes() == before


def test_what_was_begun_before_fingerprints_is_continued_in_the_run_s_own_folder_alone(
    make, asked, tmp_path, monkeypatch
):
    model, own, shared = make("A", 0.1), tmp_path / "A" / "samples" / "x.npz", tmp_path / "T" / "x.npz"
    usual = sample_files.SampleSpec.settings
    with monkeypatch.context() as before:
        before.setattr(sample_files.SampleSpec, "settings", lambda spec: trained_model.unsigned(usual(spec)))
        begin(model, own, asked)
        begin(model, shared, asked)
    drawn = len(asked["batches"])
    assert {*draw(model, own).ravel()} == {25}
    assert len(asked["batches"]) == drawn + 2
    with pytest.raises(ValueError, match="has not finished"):
        draw(model, shared)


def test_published_evaluators_see_one_array_alone(make, asked, tmp_path):
    draw(make("A", 0.1), tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0"]
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        assert archive.namelist() == ["arr_0.npy"]
        assert b"weights_sha256" in archive.comment
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz", "x.png"]


def test_the_generator_is_part_of_what_samples_are(make):
    model = make("A", 0.1)
    usual = sample_files.sample_spec(model, seed=0)
    model.experiment.config.sample.prng_impl = "rbg"
    rbg = sample_files.sample_spec(model, seed=0)
    assert rbg.name == "step12_ema_seed0_rbg"
    assert rbg.settings() == usual.settings() | {"prng_impl": "rbg"}


def test_the_sampler_is_part_of_what_samples_are(make):
    model = make("A", 0.1)
    usual = sample_files.sample_spec(model, seed=0)
    for settings, name, fields in (
        (dict(sampler="ddim", steps=5, eta=0.5), "_ddim5_eta0.5", dict(sampler="ddim", steps=5, eta=0.5)),
        (dict(sampler="heun", spacing="karras"), "_heun", dict(sampler="heun")),  # its usual one, and all timesteps
        (
            dict(sampler="ddim", steps=10, spacing="trailing"),
            "_ddim_trailing",
            dict(sampler="ddim", spacing="trailing"),
        ),
        (dict(steps=3), "_ancestral3", dict(steps=3)),
        (dict(steps=10, spacing="uniform"), "", {}),
        (dict(clip=False, threshold=0.9), "_threshold0.9", dict(threshold=0.9)),
    ):
        spec = sample_files.sample_spec(model.sampling_with(**settings), seed=0)
        assert spec.name == usual.name + name
        assert spec.settings() == usual.settings() | fields


def test_labels_and_guidance_are_part_of_what_samples_are(make, tiny_config):
    without = sample_files.sample_spec(make("A", 0.1), seed=0)
    assert without.name == "step12_ema_seed0"
    assert not {"labels", "guidance", "guidance_interval"} & without.settings().keys()
    tiny_config.model.num_classes = 10
    by_class = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), by_class.abstract_params)
    model = TrainedModel(by_class, params, 12, "raw")

    def named(**settings):
        spec = sample_files.sample_spec(model.sampling_with(**settings), seed=0)
        chosen = {name: value for name, value in spec.settings().items() if name.startswith(("labels", "guidance"))}
        return spec.name.removeprefix("step12_raw_seed0"), chosen

    assert named() == named(labels="all") == ("_labelsall", {"labels": "all"})
    assert named(labels="none") == ("_labelsnone", {"labels": "none"})
    assert named(labels="3, 1", guidance=2.0) == ("_labels3-1_guidance2", {"labels": "3,1", "guidance": 2.0})
    in_part = {"labels": "3", "guidance": 0.5, "guidance_interval": "2,8"}
    assert named(labels="3", guidance=0.5, guidance_interval=(2, 8)) == ("_labels3_guidance0.5_t2-8", in_part)
    assert named(labels="3", guidance_interval=(2, 8)) == ("_labels3", {"labels": "3"})  # with nothing to be on
    assert len(named(labels=",".join("0123456789" * 5))[0]) == len("_labels") + 16
    assert model.experiment.config.sample.labels == ""  # unchanged
    with pytest.raises(ValueError, match="sample.labels='10' must be numbers in 0..9"):
        model.sampling_with(labels="10")


def test_a_batch_is_drawn_with_the_classes_of_its_images(tiny_config, tmp_path, monkeypatch):
    tiny_config.model.num_classes = 10
    tiny_config.sample.labels = "4,9,2"
    experiment = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), experiment.abstract_params)
    model = TrainedModel(experiment, params, 12, "raw")

    def show_label(params, keys, labels, report=None):
        return np.broadcast_to(labels[:, None, None, None], (len(keys), 8, 8, 1))

    monkeypatch.setattr(sample_files, "mapped_sample", lambda _: show_label)
    in_memory = sample_files.draw_in_memory(experiment, params, num_samples=5, batch_size=2, seed=0)
    assert in_memory[:, 0, 0, 0].tolist() == [4, 9, 2, 4, 9]
    np.testing.assert_array_equal(draw(model, tmp_path / "x.npz")[:5], in_memory)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_images_that_are_not_finite_are_refused(value):
    draw = sample_files.map_images(lambda scale, x: scale * x)
    x = np.ones((3, 2, 2, 1), np.float32)
    assert draw(jnp.float32(-1.0), x).tolist() == np.zeros((3, 2, 2, 1)).tolist()
    x[1, 0, 1] = value
    with pytest.raises(FloatingPointError, match="1 of 3 images are not finite"):
        draw(jnp.float32(1.0), x)
