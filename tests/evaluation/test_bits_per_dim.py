import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.evaluation import bits_per_dim, image_sets, results
from ddpm_jax.evaluation.selection import select_images
from ddpm_jax.runs import trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel


@pytest.fixture
def measure(tiny_config, tmp_path, monkeypatch):
    """`measure("A", folder)` -> the estimate of run A, here the size of its weights; it has a work folder."""
    experiment = make_experiment(tiny_config)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1), dtype=np.uint8)
    images = image_sets.from_array(pixels, {"images": "some"})

    def first_weight(params, pixels, keys, report):
        return np.full((len(keys), 1), jax.tree.leaves(params)[0].ravel()[0])

    monkeypatch.setattr(bits_per_dim, "_map_estimate", lambda *_: first_weight)

    def measure(name, folder):
        params = jax.tree.map(
            lambda leaf: jnp.full(leaf.shape, ord(name) / 1000, leaf.dtype), experiment.abstract_params
        )
        model = TrainedModel(experiment, params, 12, trained_model.average_name(tiny_config), tmp_path / name)
        selection = select_images(model, images, split="test", num_images=None, seed=0)
        score = bits_per_dim.estimate_total(selection, folder, num_timesteps=2, batch_size=4)
        if folder:
            results.write(folder / results.FILE, [score], settings=selection.settings)
        return score

    return measure


def test_a_model_with_classes_is_told_that_of_each_image(tiny_config, tmp_path, monkeypatch):
    tiny_config.model.num_classes = 10
    experiment = make_experiment(tiny_config)
    labels = np.array([7, 3, 5, 1], np.int32)
    images = image_sets.from_array(np.zeros((4, 8, 8, 1), np.uint8), {"images": "some"})
    images = dataclasses.replace(images, read_labels=lambda indices: labels[indices])
    show = lambda params, pixels, keys, labels, report: np.float32(labels)[:, None]  # noqa: E731
    monkeypatch.setattr(
        bits_per_dim,
        "_map_estimate",
        lambda *_: show,
    )
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), experiment.abstract_params)
    model = TrainedModel(experiment, params, 12, trained_model.average_name(tiny_config))
    selection = select_images(model, images, split="test", num_images=3, seed=0)
    score = bits_per_dim.estimate_total(selection, None, num_timesteps=2, batch_size=2)
    assert score.value == pytest.approx(labels[selection.indices].mean())
    assert score.table["settings"]["labels"] == "of the images"


def test_a_folder_of_two_runs_never_gives_one_the_other_s_number(measure, tmp_path, capsys):
    shared = tmp_path / "T"
    score = measure("A", shared)
    with pytest.raises(ValueError, match=r"T/bpd_fast_.+ is of the weights .+, and these are .+: choose another"):
        measure("B", shared)
    capsys.readouterr()
    assert measure("A", shared) == score
    assert "which is there already" in capsys.readouterr().out
    assert measure("B", tmp_path / "B" / "tables").value != score.value
    (entry,) = results.read(shared / results.FILE)
    assert entry["settings"]["weights_sha256"] == score.table["weights_sha256"]
