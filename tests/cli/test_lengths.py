"""A score by the length of the average: what is printed and drawn, of scores that are made up."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from ddpm_jax.cli import evaluate
from ddpm_jax.evaluation import scoring
from ddpm_jax.evaluation.results import Score
from ddpm_jax.paper import plots
from ddpm_jax.runs import trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel

VALUES = {"posthoc_0.05": 3.0, "posthoc_0.1": 1.0, "posthoc_0.2": 2.0}


def test_each_length_is_scored_and_the_lowest_and_highest_are_named(tiny_config, tmp_path, monkeypatch, capsys):
    experiment = make_experiment(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), experiment.abstract_params)
    models = [TrainedModel(experiment, params, 12, name) for name in VALUES]
    monkeypatch.setattr(
        scoring, "evaluate", lambda model, metrics, **_: [Score(metrics[0], "FID", VALUES[model.weights])]
    )
    drawn = {}
    monkeypatch.setattr(plots, "score_by_length", lambda path, points, **named: drawn.update({path: (points, named)}))
    flags = SimpleNamespace(
        lengths=["0.05", "0.1", "0.2"], metrics=["fid"], num_samples=5, split="test", num_images=None,
        num_timesteps=None, batch_size=None, seed=0,
    )  # fmt: skip
    evaluate._measure_lengths(flags, models, tmp_path)
    points = {0.05: (3.0, None), 0.1: (1.0, None), 0.2: (2.0, None)}
    assert drawn == {tmp_path / "lengths_fid_step12.png": (points, {"name": "FID", "title": "digits, step 12"})}
    assert "FID: lowest at length 0.1, highest at 0.05" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("averages", "asked", "name"),
    [
        ((), "ema", "ema_0.995"),
        (("ema_0.9",), "ema_0.9", "ema_0.9"),
        (("power_0.05", "power_0.1"), "posthoc_0.070", "posthoc_0.07"),
        (("power_0.05", "power_0.1"), "power_0.1", "power_0.1"),
        (("ema_0.9", "power_0.1"), "posthoc_0.07", "choose from raw, ema, ema_0.995, ema_0.9, power_0.1."),
        (("power_0.05", "power_0.1"), "posthoc_x", "power_0.05, power_0.1, posthoc_LENGTH."),
    ],
)
def test_weights_have_names(tiny_config, averages, asked, name):
    tiny_config.optim.averages = averages
    if "," in name:
        with pytest.raises(ValueError, match=f"There are no weights '{asked}'; .*{name}"):
            trained_model._full_name(asked, tiny_config)
    else:
        assert trained_model._full_name(asked, tiny_config) == name
