import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.evaluation import image_sets
from ddpm_jax.paper import figures
from ddpm_jax.runs import trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel


@pytest.fixture
def model(tiny_config):
    experiment = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), experiment.abstract_params)
    return TrainedModel(experiment, params, 12, trained_model.average_name(tiny_config))


@pytest.fixture
def name_of(model, tmp_path, monkeypatch):
    """`name_of("interpolate", sources=["3", "17"])` -> the name of the figure, which is not drawn."""
    for draw in ("progressive", "shared_latents", "interpolations", "nearest_neighbours"):
        monkeypatch.setattr(figures, draw, lambda *_, **__: None)
    return lambda mode, **settings: figures.draw(model, tmp_path, mode, **settings).name


def test_figures_of_the_default_settings_keep_their_names(name_of):
    names = [name_of(mode) for mode in figures.MODES]
    assert names == [f"{mode}_step12_ema_seed0_{6 if mode == 'neighbours' else 10}.png" for mode in figures.MODES]


def test_settings_that_change_a_picture_are_in_its_name(name_of):
    assert name_of("interpolate", sources=["3", "17"]) == "interpolate_step12_ema_seed0_1_sources3-17.png"
    assert name_of("interpolate", sources=["5", "9"]) == "interpolate_step12_ema_seed0_1_sources5-9.png"
    assert name_of("neighbours", crop=4) == "neighbours_step12_ema_seed0_6_crop4.png"
    assert name_of("neighbours", sources=["3", "17"]) == name_of("neighbours")  # which has none
    many = [[str(i) for i in range(first, first + 400)] for first in (0, 1)]
    names = {name_of("interpolate", sources=sources) for sources in many}
    assert len(names) == 2
    assert all(len(name) < 100 for name in names)


def test_too_few_training_images_are_refused_before_samples_are_drawn(model, tmp_path, monkeypatch):
    few = image_sets.from_array(np.zeros((7, 8, 8, 1), np.uint8), {})
    monkeypatch.setattr(image_sets, "share_split", lambda *_: few)
    with pytest.raises(ValueError, match=r"neighbours are 8 training images, and data\.split has 7"):
        figures.draw(model, tmp_path, "neighbours")
    assert not list(tmp_path.iterdir())
