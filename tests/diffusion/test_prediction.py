import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import diffusion, sampling
from ddpm_jax.schedule import beta_schedule


def test_dynamic_thresholding_scales_each_image_by_its_own_quantile():
    rng = np.random.default_rng(0)
    x_0 = rng.standard_normal((3, 4, 5, 2)).astype(np.float32) * np.array([0.2, 1.0, 9.0]).reshape(3, 1, 1, 1)
    for quantile in (0.5, 0.9, 1.0):
        made = jax.jit(functools.partial(diffusion.dynamic_threshold, quantile=quantile))(jnp.asarray(x_0, jnp.float32))
        for image, ours in zip(x_0, made, strict=True):
            bound = max(1.0, np.quantile(np.abs(image), quantile))
            np.testing.assert_allclose(ours, np.clip(image, -bound, bound) / bound, rtol=1e-5, atol=1e-6)
    small = 0.1 * x_0[:1]
    np.testing.assert_array_equal(diffusion.dynamic_threshold(small), diffusion.clip_x_0(small))


def test_it_is_applied_before_anything_follows_from_x_0():
    """In p and in every loop, in place of clipping."""
    process = diffusion.make_process(beta_schedule("linear", 10))
    x_t, t = (5.0 * jnp.ones((1, 2, 2, 1))).at[0, 0, 0, 0].set(1.0), jnp.array([9])
    denoise_fn = lambda x, t: jnp.zeros_like(x)  # noqa: E731
    _, x_0 = sampling.p_sample(process, denoise_fn, x_t=x_t, t=t, eps=x_t, clip=diffusion.dynamic_threshold)
    np.testing.assert_allclose(x_0.ravel(), [0.2, 1.0, 1.0, 1.0], rtol=1e-5)  # and not 1 everywhere
    predict_fn = diffusion.make_predict_fn(process, denoise_fn, constrain=diffusion.dynamic_threshold)
    predicted = predict_fn(x_t, t)
    mean, _, _ = diffusion.q_posterior(process, x_0=x_0, x_t=x_t, t=t)
    np.testing.assert_allclose(predicted.mean, mean, rtol=1e-6)


@pytest.mark.parametrize("mean_type", ["eps", "xstart", "xprev", "v"])
@pytest.mark.parametrize("constrain", [None, diffusion.clip_x_0])
def test_eps_is_the_noise_of_x_t_beside_the_x_0_that_is_used(mean_type, constrain):
    process = diffusion.make_process(beta_schedule("linear", 100), mean_type=mean_type)
    rng, t = np.random.default_rng(0), jnp.array([0, 50, 99])
    x_t, output = rng.standard_normal((2, 3, 4, 5, 2)).astype(np.float32)
    predicted = diffusion.make_predict_fn(process, lambda x, t: output, constrain=constrain)(x_t, t)
    again = diffusion.q_sample(process, x_0=predicted.x_0, t=t, eps=predicted.eps)
    scale = 1.0 + np.abs(predicted.x_0).max()
    np.testing.assert_allclose(again, x_t, atol=1e-6 * scale)
    if mean_type == "eps" and constrain is None:
        np.testing.assert_array_equal(predicted.eps, output)


@pytest.mark.parametrize("mean_type", ["eps", "xstart", "v"])
def test_between_whole_timesteps_x_0_and_eps_make_x_t(mean_type):
    process = diffusion.make_process(beta_schedule("linear", 100), mean_type=mean_type)
    rng, t = np.random.default_rng(0), jnp.array([0.5, 98.25])
    x_0, eps = rng.standard_normal((2, 2, 4, 5, 1)).astype(np.float32)
    signal, noise = diffusion.signal_and_noise(process, t)
    truth = {"eps": eps, "xstart": x_0, "v": signal * eps - noise * x_0}[mean_type]
    x_t = diffusion.q_sample(process, x_0=x_0, t=t, eps=eps)
    predicted = diffusion.make_predict_fn(process, lambda x, t: truth, constrain=None)(x_t, t)
    np.testing.assert_allclose(predicted.x_0, x_0, atol=1e-4)
    np.testing.assert_allclose(predicted.eps, eps, atol=1e-4)
    assert predicted.mean is None


def test_the_mean_of_x_before_is_of_whole_timesteps():
    process = diffusion.make_process(beta_schedule("linear", 100), mean_type="xprev")
    predict_fn = diffusion.make_predict_fn(process, lambda x, t: x, constrain=None)
    with pytest.raises(ValueError, match="mean_type='xprev' predicts at whole timesteps alone"):
        predict_fn(jnp.ones((1, 2, 2, 1)), jnp.array([0.5]))
