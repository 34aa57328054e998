import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

import configs
from ddpm_jax.runs import defaults, experiment

CONFIGS = sorted(path.stem for path in Path(configs.__file__).parent.glob("[!_]*.py"))
PARAMETERS = {"cifar10": 35_746_307, "celebahq256": 113_673_219, "lsun_bedroom_large": 255_677_955}


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_right_and_describes_a_network(name):
    config = load(name)
    experiment.check(config)
    made = experiment.make(config)
    assert made.process.num_timesteps == 1000
    count = sum(leaf.size for leaf in jax.tree.leaves(made.abstract_params()))
    assert count == PARAMETERS.get(name, count)


def test_the_cifar10_config_is_the_paper_s():
    """Section 4 and Appendix B, and the official code's warm-up, clipping and variance."""
    config = load("cifar10")
    assert (config.diffusion.beta_start, config.diffusion.beta_end, config.diffusion.schedule) == (1e-4, 0.02, "linear")
    assert (config.optim.lr, config.optim.ema_decay, config.train.batch_size) == (2e-4, 0.9999, 128)
    assert (config.optim.warmup_steps, config.optim.clip_norm, config.model.dropout) == (5000, 1.0, 0.1)
    assert (config.train.num_steps, config.data.flip, config.diffusion.var_type) == (800_000, True, "fixedlarge")


@pytest.mark.parametrize(
    ("name", "num_steps", "flip"),
    [
        ("celebahq256", 500_000, True),
        ("lsun_bedroom", 2_400_000, False),
        ("lsun_bedroom_large", 1_150_000, False),
        ("lsun_church", 1_200_000, True),
        ("lsun_cat", 1_800_000, True),
    ],
)
def test_the_256_configs_are_the_paper_s(name, num_steps, flip):
    config = load(name)
    assert (config.train.num_steps, config.data.flip, config.model.dropout) == (num_steps, flip, 0.0)
    assert (config.optim.lr, config.train.batch_size, config.diffusion.var_type) == (2e-5, 64, "fixedsmall")
    assert config.data.image_size == (256, 256)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optim": {"leaning_rate": 1.0}}, "optim.leaning_rate is no setting; the nearest is"),
        ({"optim": {"lrr": 1.0}}, "optim.lrr is no setting; the nearest is optim.lr"),
        ({"train": {"batchsize": 1}}, "the nearest is train.batch_size"),
        ({"optim": {"lr": "fast"}}, "optim.lr='fast' must be of type float, like 0.0002"),
        ({"train": {"num_steps": 1.5}}, "train.num_steps=1.5 must be of type int"),
        ({"data": {"flip": 1}}, "data.flip=1 must be of type bool"),
        ({"train": {"batch_size": 0}}, "train.batch_size=0 must be at least 1"),
        ({"optim": {"lr": float("nan")}}, "optim.lr=nan must be at least 0"),
        ({"optim": {"lr": 10**400}}, r"optim.lr=10+ must be at most 10+"),
        ({"diffusion": {"num_timesteps": 10**12}}, "diffusion.num_timesteps=10+ must be at most 1000000"),
        ({"diffusion": {"beta_end": float("inf")}}, "diffusion.beta_end=inf must be at most"),
        ({"model": {"ch": 10**9}}, "model.ch=1000000000 must be at most 16384"),
        ({"model": {"ch_mult": (1, 10**9)}}, r"model.ch_mult=\(1, 10+\) must be 1 to 16 integers in 1..64"),
        ({"model": {"ch_mult": (1,) * 10**4}}, r"model.ch_mult=\(1, [1, ]{1,99} must be 1 to 16"),
        ({"model": {"ch_mult": ()}}, "model.ch_mult"),
        ({"model": {"attn_resolutions": ("8",)}}, "model.attn_resolutions=.*must be integers in"),
        ({"train": {"eval_metrics": (7,)}}, "train.eval_metrics=.*must be names"),
        ({"model": {"dropout": 1.0}}, "model.dropout=1.0 must be below 1"),
        ({"model": {"dtype": "float16"}}, "model.dtype='float16' must be one of float32, bfloat16"),
        ({"data": {"image_size": (8, 8, 3)}}, r"data.image_size=\(8, 8, 3\) must be one or two"),
        ({"data": {"channels": 5}}, "data.channels=5"),
        ({"train": {"profile": "9:3"}}, "train.profile='9:3' must be FIRST:LAST"),
        ({"train": {"profile": "3:800001"}}, "train.profile='3:800001' must end by train.num_steps=800000"),
        ({"train": {"steps_per_dispatch": 7}}, "train.log_every=100 must be a multiple of .*=7; try 98"),
    ],
)
def test_a_wrong_field_is_refused_by_name(change, message):
    values = defaults.get_config().to_dict()
    for section, fields in change.items():
        values[section] |= fields
    with pytest.raises(ValueError, match=message):
        experiment.check(ml_collections.ConfigDict(values))


def test_every_wrong_field_is_named_at_once():
    values = defaults.get_config().to_dict()
    del values["model"]["ch"]
    values["optim"]["lr"] = -1.0
    values["surprise"] = 3
    with pytest.raises(ValueError, match="model.ch is missing; .*optim.lr=-1.0.*surprise is no setting"):
        experiment.check(ml_collections.ConfigDict(values))


def test_an_unknown_field_in_a_config_file_is_refused_at_once():
    with pytest.raises(AttributeError, match="Did you mean.*batch_size"):
        defaults.get_config().train.batch_sise = 3


def test_a_whole_number_is_a_float_too():
    config = defaults.get_config()
    values = config.to_dict()
    values["optim"]["clip_norm"] = 1
    experiment.check(ml_collections.ConfigDict(values))


def test_json_gives_the_config_back(tiny_config):
    again = experiment.from_json(experiment.to_json(tiny_config))
    assert again == tiny_config
    assert isinstance(again.model.ch_mult, tuple)


def test_differences_are_those_that_change_the_run():
    old, new = defaults.get_config(), defaults.get_config()
    new.train.update(num_steps=5, log_every=5, keep=9, profile="2:3")
    new.sample.seed = 3
    assert experiment.differences(old, new) == []
    new.optim.lr = 1e-3
    new.train.seed = 7
    assert experiment.differences(old, new) == ["optim.lr: 0.0002 -> 0.001", "train.seed: 0 -> 7"]


def test_an_image_size_of_one_number_is_square(tiny_config):
    tiny_config.data.image_size = (4,)
    assert experiment.make(tiny_config).image_shape == (4, 4, 1)


def test_sample_is_a_pure_function_of_parameters_and_keys(tiny_config):
    made = experiment.make(tiny_config)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), made.abstract_params())
    keys = jax.random.split(jax.random.key(0), 2)
    outer = jax.jit(lambda params, keys: made.sample(params, keys).sum())
    x_0 = made.sample(params, keys)
    assert x_0.shape == (2, 8, 8, 1)
    np.testing.assert_allclose(outer(params, keys), x_0.sum(), rtol=1e-4)
