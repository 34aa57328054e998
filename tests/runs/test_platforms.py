import importlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from configs import digits
from ddpm_jax import data
from ddpm_jax.cli import experiments
from ddpm_jax.metrics import classifier, inception
from ddpm_jax.runs import trainer
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.unet import UNet


def train_step(config, *, plain=False):
    """The jitted train step of one device, and the shapes of its arguments."""
    experiment = make_experiment(config)
    optimizer, step = trainer.make_step(experiment)
    state = jax.eval_shape(trainer.make_init(experiment, optimizer))
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), trainer.abstract_batch(experiment))
    model = {"model": experiment.model} if plain else {}
    return jax.jit(lambda state, batch: step(state, batch, axis_name=None, **model)), (state, batch)


def sampler(config):
    """The jitted sampler, and the shapes of its arguments."""
    experiment = make_experiment(config)
    inputs = jax.eval_shape(lambda: experiment.inputs(0, np.arange(2)))
    return jax.jit(experiment.sample), (experiment.abstract_params, *inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", experiments.names())
@pytest.mark.parametrize("make", [train_step, sampler])
def test_every_experiment_lowers_for_every_platform(name, make):
    config = importlib.import_module(f"ddpm_jax.configs.{name}").get_config()
    function, arguments = make(config)
    exported = export.export(function, platforms=("cpu", "cuda", "tpu"))(*arguments)
    assert exported.platforms == ("cpu", "cuda", "tpu")


def operations(function, arguments, platform):
    program = function.trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    found = re.findall(r"stablehlo\.(convolution|dot_general|case|if)\b", program)
    return {name: found.count(name) for name in sorted(set(found))}


@pytest.mark.slow
def test_the_program_for_a_tpu_has_no_branch_for_cpus():
    config = digits.get_config()
    config.data.image_size = (16, 16)  # large enough for the CPU's own convolutions
    config.model.update(ch_mult=(1,), attn_resolutions=())
    ours, plain = train_step(config), train_step(config, plain=True)
    assert operations(*ours, "tpu") == operations(*plain, "tpu")
    assert operations(*ours, "cpu") != operations(*plain, "cpu")  # which has it


def precisions(function, *arguments):
    """Those of the convolutions and of the matrix products, in order, as a TPU is asked for them by default."""
    with jax.default_matmul_precision("default"):
        program = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    found = re.findall(r"stablehlo\.(convolution|dot_general)\b.*?\b(DEFAULT|HIGHEST)\b", program)
    assert len(found) == len(re.findall(r"stablehlo\.(?:convolution|dot_general)\b", program))
    return [[precision for name, precision in found if name == each] for each in ("convolution", "dot_general")]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_on_accelerators_x_t_enters_the_network_in_full_precision(dtype):
    """The rest is left to JAX, so that its own setting decides."""
    model = UNet(out_ch=1, ch=32, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), dtype=dtype)
    x_t, t = jnp.zeros((1, 8, 8, 1)), jnp.zeros(1, jnp.int32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x_t, t)
    (first, *others), products = precisions(model.apply, variables, x_t, t)
    assert (first, {*others}, {*products}) == ("HIGHEST", {"DEFAULT"}, {"DEFAULT"})


def test_on_accelerators_features_are_computed_in_full_precision():
    """Else a score would depend on the device; JAX multiplies float32 in TF32 on GPUs and in bfloat16 on TPUs."""
    trained = classifier.train(data.load("digits"), name="digits", num_steps=1)
    pixels = jnp.zeros((1, 8, 8, 1), jnp.uint8)
    weights = jax.eval_shape(inception.Inception().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))["params"]
    for apply, params in ((trained.apply, trained.params), (inception.apply, weights)):
        convolutions, products = precisions(apply, params, pixels)
        assert {*convolutions} == {*products} == {"HIGHEST"}
