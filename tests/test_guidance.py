"""Guidance against closed forms: for Gaussian data the guided prediction is that of another Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import exact_denoise_fn

from ddpm_jax import diffusion, guidance, sampling
from ddpm_jax.schedule import beta_schedule

SHAPE = (3, 4, 2)
BETAS = beta_schedule("linear", 50, beta_start=1e-3, beta_end=0.2)
PROCESS = diffusion.make_process(BETAS)
DEVIATION = 0.5


def some_x_t(count=4):
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, *SHAPE), np.float32), np.array([0, 7, 30, 49][:count], np.int32)


def model_fn(calls=None):
    """The best prediction of eps for data of which each pixel is N(cond, DEVIATION^2), in each channel."""

    def predict(x_t, t, cond):
        if calls is not None:
            calls.append(x_t.shape)
        alpha_cumprod = PROCESS.alphas_cumprod[t][:, None, None, None]
        variance = alpha_cumprod * DEVIATION**2 + 1.0 - alpha_cumprod
        centred = x_t - jnp.sqrt(alpha_cumprod) * cond[:, None, None, :]
        return jnp.sqrt(1.0 - alpha_cumprod) * centred / variance

    return predict


def test_guidance_moves_the_mean_away_from_the_null_condition_s_in_one_call():
    (x_t, t), calls = some_x_t(), []
    cond, null = np.float32([[1.0, 2.0], [0.0, 1.0], [3.0, -1.0], [0.5, 0.5]]), np.float32([0.25, -0.5])
    denoise_fn = guidance.classifier_free(model_fn(calls), jnp.asarray(cond), null=null[None], scale=1.5)
    expected = model_fn()(x_t, t, jnp.asarray(2.5 * cond - 1.5 * null[None]))
    np.testing.assert_allclose(jax.jit(denoise_fn)(x_t, t), expected, atol=1e-5)
    assert calls == [(8, *SHAPE)]


def test_without_another_null_condition_it_is_zeros():
    x_t, t = some_x_t()
    cond = jnp.full((4, 2), 0.7)
    guided = guidance.classifier_free(model_fn(), cond, scale=3.0)(x_t, t)
    np.testing.assert_allclose(guided, model_fn()(x_t, t, 4.0 * cond), atol=1e-5)


def test_a_scale_is_a_function_of_t_and_0_outside_its_interval():
    x_t, t = some_x_t()
    cond = jnp.full((4, 2), 0.7)
    guided = guidance.classifier_free(model_fn(), cond, scale=guidance.within(2.0, first=7, last=30))(x_t, t)
    factors = jnp.array([1.0, 3.0, 3.0, 1.0])[:, None]  # of t = 0, 7, 30, 49
    np.testing.assert_allclose(guided, model_fn()(x_t, t, cond * factors), atol=1e-5)
    by_t = guidance.classifier_free(model_fn(), cond, scale=lambda t: t / 10.0)(x_t, t)
    np.testing.assert_allclose(by_t, model_fn()(x_t, t, cond * (1.0 + t / np.float32(10.0))[:, None]), atol=1e-5)


def test_a_whole_chain_with_guidance_draws_the_gaussian_that_it_moves_to():
    denoise_fn = guidance.classifier_free(model_fn(), jnp.full((2000, 2), 0.5), scale=1.0)
    keys = sampling.image_keys(0, np.arange(2000))
    drawn = jax.jit(lambda: sampling.sample_loop(PROCESS, denoise_fn, keys=keys, shape=(1, 1, 2), clip=False))()
    np.testing.assert_allclose(drawn.mean(), 1.0, atol=0.05)


@pytest.mark.parametrize("learned", [False, True])
def test_a_weaker_network_is_left_behind_and_learned_variances_are_the_better_one_s(learned):
    x_t, t = some_x_t()

    def network(factor):
        outputs = lambda x_t, t: factor * x_t, lambda x_t, t: jnp.full(x_t.shape, factor)
        return lambda x_t, t: jnp.concatenate([f(x_t, t) for f in outputs[: 1 + learned]], axis=-1)

    guided = guidance.extrapolate(network(0.5), network(0.2), scale=2.0)(x_t, t)
    np.testing.assert_allclose(guided[..., :2], (0.5 + 2.0 * 0.3) * x_t, rtol=1e-5)
    if learned:
        np.testing.assert_array_equal(guided[..., 2:], np.full_like(x_t, 0.5))


def as_predicted(process, x_0, x_t, t):
    """What a network predicts that implies x_0, by the definitions of the four parametrizations."""
    alpha_cumprod = np.cumprod(1.0 - BETAS)[t].reshape(-1, 1, 1, 1).astype(np.float32)
    eps = (x_t - np.sqrt(alpha_cumprod) * x_0) / np.sqrt(1.0 - alpha_cumprod)
    match process.mean_type:
        case "eps":
            return eps
        case "xstart":
            return x_0
        case "v":
            return np.sqrt(alpha_cumprod) * eps - np.sqrt(1.0 - alpha_cumprod) * x_0
        case "xprev":
            return diffusion.q_posterior(process, x_0=x_0, x_t=x_t, t=t)[0]


@pytest.mark.parametrize("mean_type", diffusion.MEAN_TYPES)
@pytest.mark.parametrize("learned", [False, True])
def test_the_gradient_of_a_measurement_gives_the_posterior(mean_type, learned):
    """y = x_0 + N(0, noise^2). The exact p(y | x_t) has the variance of x_0 given x_t, too: the scale adds it."""
    process = diffusion.make_process(BETAS, mean_type=mean_type, var_type="learned" if learned else "fixedlarge")
    x_t, t = some_x_t()
    mean, noise, y = 0.3, 0.4, np.random.default_rng(1).standard_normal((4, *SHAPE), np.float32)

    def prior(t):
        """Of x_0 given x_t: the factor of x_t - sqrt(alpha-bar) mean in its mean, and its variance; [B]."""
        alpha_cumprod = jnp.asarray(np.cumprod(1.0 - BETAS), jnp.float32)[t]
        marginal = alpha_cumprod * DEVIATION**2 + 1.0 - alpha_cumprod
        return DEVIATION**2 * jnp.sqrt(alpha_cumprod) / marginal, DEVIATION**2 * (1.0 - alpha_cumprod) / marginal

    def best_x_0(x_t, t):
        factor = prior(t)[0][:, None, None, None]
        return mean + factor * (x_t - process.sqrt_alphas_cumprod[t][:, None, None, None] * mean)

    def denoise_fn(x_t, t):
        prediction = as_predicted(process, best_x_0(x_t, t), x_t, t)
        return jnp.concatenate([prediction, jnp.full(x_t.shape, -7.0)], axis=-1) if learned else prediction

    guided_fn = guidance.gradient(
        process, denoise_fn, lambda x_0: -((y - x_0) ** 2).sum((1, 2, 3)) / (2.0 * noise**2),
        scale=lambda t: noise**2 / (noise**2 + prior(t)[1]),
    )  # fmt: skip
    output = guided_fn(x_t, t)
    variance = prior(t)[1][:, None, None, None]
    posterior = best_x_0(x_t, t) + variance / (variance + noise**2) * (y - best_x_0(x_t, t))
    implied = diffusion.predict_x_0(process, prediction=output[..., :2], x_t=x_t, t=t)
    np.testing.assert_allclose(implied, posterior, atol=2e-4)
    assert np.abs(posterior - best_x_0(x_t, t)).max() > 0.1
    if learned:
        np.testing.assert_array_equal(output[..., 2:], -7.0)


def test_a_gradient_of_scale_0_changes_nothing():
    x_t, t = some_x_t()
    denoise_fn = exact_denoise_fn(PROCESS, mean=0.1, deviation=0.5)
    guided = guidance.gradient(PROCESS, denoise_fn, lambda x_0: x_0.sum((1, 2, 3)), scale=0.0)(x_t, t)
    np.testing.assert_array_equal(guided, denoise_fn(x_t, t))
