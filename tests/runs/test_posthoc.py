"""Averages after training, of weights whose course over training is known: w(t) = t."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax import averaging, parallel
from ddpm_jax.runs import checkpoint, posthoc
from ddpm_jax.training import TrainState

NAMES = ("power_0.05", "power_0.1")


def mean_time(sigma_rel, step):
    """The mean of tau under the density (gamma + 1) tau^gamma / t^(gamma + 1)."""
    gamma = averaging.exponent(sigma_rel)
    return step * (gamma + 1.0) / (gamma + 2.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    saved = checkpoint.Checkpoints(folder, keep=10, keep_period=0)
    for step in range(100, 601, 100):
        at = lambda value: {"w": jnp.full(3, value, jnp.float32)}  # noqa: E731
        averages = {name: at(mean_time(averaging.parse(name)[1], step)) for name in NAMES}
        opt_state = optax.sgd(0.1).init(at(0.0))
        state = TrainState(jnp.asarray(step, jnp.int32), at(step), at(step), opt_state, averages=averages)
        saved.save(state)
    saved.close()
    return folder


LIKE = checkpoint.abstract({"w": jnp.zeros(3, jnp.float32)}, parallel.replicated())


@pytest.mark.parametrize(("length", "step"), [(0.05, None), (0.07, None), (0.12, None), (0.08, 400)])
def test_an_average_of_another_length_is_made_of_those_stored(folder, length, step):
    made_at, made = posthoc.restore(folder, ("ema_0.9", *NAMES), LIKE, length=length, step=step)
    assert made_at == (step or 600)
    np.testing.assert_allclose(made["w"], mean_time(length, made_at), rtol=2e-3)


def test_what_is_too_far_from_what_is_stored_is_refused(folder):
    with pytest.raises(ValueError, match=r"of steps \[100, .+, 600\] do not make up an average of length 0.01: .*off"):
        posthoc.restore(folder, NAMES, LIKE, length=0.01)
