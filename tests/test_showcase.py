"""The showcase of examples/emoji, drawn whole from a tiny model of digits by class."""

import jax
import numpy as np
import pytest
from PIL import Image

from ddpm_jax.runs import image_tables, trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel
from examples.emoji import showcase

PICTURES = ("classes", "neighbours", "guidance", "steps", "inpainting", "inversion", "interpolation")


@pytest.fixture
def model(tiny_config):
    """One of random weights."""
    tiny_config.diffusion.num_timesteps = 100
    tiny_config.model.num_classes = 10
    experiment = make_experiment(tiny_config)
    leaves, structure = jax.tree.flatten(experiment.abstract_params)
    rng = np.random.default_rng(0)
    params = structure.unflatten([0.05 * rng.standard_normal(leaf.shape, np.float32) for leaf in leaves])
    return TrainedModel(experiment, params, 12, trained_model.average_name(tiny_config))


@pytest.mark.slow
def test_the_whole_showcase(model, tmp_path, monkeypatch):
    save, tables = image_tables.save, {}
    keep = lambda path, table, **labels: (tables.update({path.stem: (table, labels)}), save(path, table, **labels))  # noqa: E731
    monkeypatch.setattr(image_tables, "save", keep)
    fewer = dict(_OF_A_CLASS=2, _SCALES=(0.0, 0.5), _FEW_STEPS=(1.0, 0.05), _INVERSION_STEPS=(0.02, 0.1))
    for name, value in fewer.items():  # less to compile
        monkeypatch.setattr(showcase, name, value)
    showcase.draw_all(model, tmp_path)
    assert tuple(tables) == PICTURES
    for name, (table, labels) in tables.items():
        assert "step 12, ema weights, seed 0" in labels["title"]
        assert len(labels["left"]) == len(table)
        assert len(labels.get("above", range(table.shape[1]))) == table.shape[1]
        with Image.open(tmp_path / "showcase" / f"{name}.png") as picture:
            assert min(picture.size) > 8 * min(table.shape[:2])

    table, labels = tables["steps"]
    assert labels["left"] == ["100", "5"]
    np.testing.assert_array_equal(labels["above"], np.repeat([*"0123456789"], 2))
    np.testing.assert_array_equal(tables["guidance"][0][1], np.concatenate(tables["classes"][0]))
    given = tables["inpainting"][0][:, 0]
    np.testing.assert_array_equal(tables["inpainting"][0][:, 2:, :, :4], given[:, None, :, :4].repeat(6, 1))
    np.testing.assert_array_equal(tables["inversion"][0][:, 0], given)
    np.testing.assert_array_equal(tables["interpolation"][0][:, 0], given)

    def refuse(*_, **__):
        raise AssertionError("what is there is drawn again")

    monkeypatch.setattr(showcase, "through_latents", refuse)
    monkeypatch.setattr(showcase.edits, "inpainted", refuse)
    first = tables.copy()
    showcase.draw_all(model, tmp_path)
    for name, (table, _) in first.items():
        np.testing.assert_array_equal(tables[name][0], table)
