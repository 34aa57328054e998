import jax
import numpy as np
import pytest

from ddpm_jax import diffusion
from ddpm_jax.schedule import beta_schedule, respaced_betas, respaced_timesteps


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


@pytest.mark.parametrize(
    ("schedule", "num_timesteps", "sections", "name"),
    [("linear", 100, "10", "linear_T100_10"), ("cosine", 4000, "25", "cosine_T4000_25")],
)
def test_a_respaced_process_knows_which_t_the_network_is_given(golden, schedule, num_timesteps, sections, name):
    recorded, t = golden("respacing"), np.arange(int(sections))
    betas, taken = beta_schedule(schedule, num_timesteps), respaced_timesteps(num_timesteps, sections)
    for rescale, timesteps in ((0, taken), (1, taken * 1000 / num_timesteps)):
        process = diffusion.make_process(respaced_betas(betas, taken), timesteps=timesteps)
        given = jax.jit(lambda process, t: process.network_t(t))(process, t)
        expected = recorded[f"network_t/spaced_{name}_rescale{rescale}"]
        assert given.dtype == (np.float32 if rescale else np.int32)
        np.testing.assert_array_equal(given, expected)
    whole = diffusion.make_process(betas)
    assert whole.network_t(t) is t


def test_the_tables_of_a_respaced_process_are_computed_from_its_own_betas(golden):
    recorded, key = golden("respacing"), "space/T1000_10_10_20"
    for name in ("linear", "cosine"):
        betas = beta_schedule(name, 1000)
        process = diffusion.make_process(respaced_betas(betas, respaced_timesteps(1000, "10,10,20")))
        for table, official in (
            ("alphas_cumprod", "alphas_cumprod"),
            ("posterior_variance", "posterior_variance"),
            ("posterior_log_variance", "posterior_log_variance_clipped"),
        ):
            np.testing.assert_allclose(getattr(process, table), recorded[f"{key}/{name}/{official}"], rtol=1e-6)


def test_as_many_timesteps_as_betas_are_wanted():
    with pytest.raises(ValueError, match=r"\(5,\) betas need as many timesteps, not \(4,\)"):
        diffusion.make_process(np.full(5, 0.1), timesteps=np.arange(4))
