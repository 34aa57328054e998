import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import averaging


def profile(sigma_rel, step, num_steps):
    """The weights that a power function average gives to each step, by summing it up, step by step."""
    weights = np.zeros(num_steps)
    for t in range(step):
        decay = float(averaging.decay_at(f"power_{sigma_rel}", jnp.asarray(t)))
        weights *= decay
        weights[t] = 1.0 - decay
    return weights


@pytest.mark.parametrize("sigma_rel", [0.05, 0.1, 0.25])
def test_the_profile_of_a_power_average_has_the_deviation_of_its_name(sigma_rel):
    weights, steps = profile(sigma_rel, 400, 400), np.arange(1, 401)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-5)
    mean = weights @ steps
    deviation = np.sqrt(weights @ (steps - mean) ** 2)
    np.testing.assert_allclose(deviation / 400, sigma_rel, rtol=0.01)
    gamma = averaging.exponent(sigma_rel)
    np.testing.assert_allclose(weights[99] / weights[399], (100 / 400) ** gamma, rtol=0.2, atol=1e-6)


@pytest.mark.parametrize("length", [0.06, 0.08, 0.12, 0.15])
def test_stored_averages_make_up_one_of_another_length(length):
    stored = [(step, sigma_rel) for step in range(50, 401, 50) for sigma_rel in (0.05, 0.1)]
    steps, lengths = zip(*stored, strict=True)
    coefficients, error = averaging.reconstruction(steps, lengths, step=400, length=length)
    assert error < 0.05
    made = sum(c * profile(sigma_rel, step, 400) for c, (step, sigma_rel) in zip(coefficients, stored, strict=True))
    wanted = profile(length, 400, 400)
    assert np.linalg.norm(made - wanted) / np.linalg.norm(wanted) < error + 0.03  # sums against integrals
    np.testing.assert_allclose(coefficients.sum(), 1.0, rtol=1e-6)


def test_one_that_is_stored_is_itself():
    coefficients, error = averaging.reconstruction([100, 200, 200], [0.1, 0.05, 0.1], step=200, length=0.1)
    np.testing.assert_allclose(coefficients, [0.0, 0.0, 1.0], atol=1e-6)
    assert error < 1e-6


def test_an_average_that_nothing_stored_is_like_has_a_large_error():
    _, error = averaging.reconstruction([400], [0.2], step=400, length=0.02)
    assert error > 0.5


def test_exponential_averages_have_the_decay_of_their_name():
    averages = {"ema_0.9": {"w": jnp.array(1.0)}, "ema_0.5": {"w": jnp.array(1.0)}, "power_0.1": {"w": jnp.array(1.0)}}
    once = jax.jit(averaging.update)(averages, {"w": jnp.array(0.0)}, step=jnp.array(0))
    np.testing.assert_allclose([once[name]["w"] for name in averages], [0.9, 0.5, 0.0], rtol=1e-6)
    warm = averaging.update(averages, {"w": jnp.array(0.0)}, step=jnp.array(2), warmup=True)
    np.testing.assert_allclose([warm["ema_0.9"]["w"], warm["ema_0.5"]["w"]], [3 / 12, 3 / 12], rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["ema", "ema_1", "ema_x", "power_0", "power_0.3", "power_nan", "mean_0.1", "raw", "ema_0.9/..", "ema_ 0.9"]
)
def test_what_is_no_average_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' is no average: ema_DECAY"):
        averaging.parse(name)
