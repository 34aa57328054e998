import jax
import numpy as np
import pytest

from ddpm_jax import diffusion
from ddpm_jax.schedule import beta_schedule


@pytest.mark.parametrize(("schedule", "num_timesteps"), [("linear", 17_539), ("const", 8784)])
@pytest.mark.parametrize("mean_type", ["eps", "xprev"])
def test_coefficients_that_float32_cannot_hold_are_refused(schedule, num_timesteps, mean_type):
    betas = beta_schedule(schedule, num_timesteps)
    with pytest.raises(ValueError, match=rf"too large for float32 at t = \d+ of {num_timesteps}.+ fewer timesteps"):
        diffusion.make_process(betas, mean_type=mean_type)
    for unconcerned in ("xstart", "v"):  # neither divides by alpha-bar
        diffusion.make_process(betas, mean_type=unconcerned)
    diffusion.make_process(beta_schedule(schedule, num_timesteps // 2), mean_type=mean_type)


def test_products_with_x_t_fit_float32_too():
    """At T = 17,500 every coefficient is finite, and scale * x_t - scale * eps is infinity minus infinity."""
    with pytest.raises(ValueError, match="sqrt_recip_alphas_cumprod is too large"):
        diffusion.make_process(beta_schedule("linear", 17_500))


def test_betas_that_float64_loses_are_refused():
    with pytest.raises(ValueError, match="t = 0 of 5"):
        diffusion.make_process(np.full(5, 1e-17))


@pytest.mark.parametrize("mean_type", ["xstart", "xprev", "v"])
def test_jsd_ends_in_pure_noise_where_nothing_divides_by_it(mean_type):
    process = diffusion.make_process(beta_schedule("jsd", 1000), mean_type=mean_type)
    assert process.alphas_cumprod[-1] == 0.0


def test_one_minus_alpha_bar_is_as_exact_as_float32():
    """The difference of float32 numbers is off by 1.5e-4 of it at t = 0, and so were the variance and the score."""
    betas = beta_schedule("linear", 1000)
    alpha_cumprod = 1.0 - betas[0]
    rng = np.random.default_rng(0)
    x_0, eps = rng.uniform(-1, 1, (1, 4, 6, 3)), rng.standard_normal((1, 4, 6, 3))
    x_t = np.sqrt(alpha_cumprod) * x_0 + np.sqrt(1.0 - alpha_cumprod) * eps
    t, process = np.zeros(1, np.int32), diffusion.make_process(betas, mean_type="xstart")
    _, variance, log_variance = jax.jit(diffusion.q_mean_variance)(process, x_0=np.float32(x_0), t=t)
    np.testing.assert_allclose(variance, betas[0], rtol=1e-6)
    np.testing.assert_allclose(variance, np.exp(np.float64(log_variance)), rtol=1e-6)
    score = jax.jit(diffusion.score)(process, model_output=np.float32(x_0), x_t=np.float32(x_t), t=t)
    expected = -eps / np.sqrt(1.0 - alpha_cumprod)
    np.testing.assert_allclose(score, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
