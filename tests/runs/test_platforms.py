import importlib
import re

import jax
import numpy as np
import pytest
from jax import export

from configs import digits
from ddpm_jax.cli import experiments
from ddpm_jax.runs import trainer
from ddpm_jax.runs.experiment import make_experiment


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
