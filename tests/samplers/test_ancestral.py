import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fixed_denoise_fn

from ddpm_jax import diffusion, samplers, sampling
from ddpm_jax.schedule import beta_schedule


@pytest.mark.parametrize(("var_type", "official"), [("fixedlarge", "eps_fixedlarge"), ("fixedsmall", "old")])
def test_the_steps_with_known_noise_equal_the_official_ones(golden, var_type, official):
    chain = golden("chain")
    process = diffusion.make_process(chain["betas"], var_type=var_type)
    predict_fn = diffusion.make_predict_fn(
        process, fixed_denoise_fn(chain["denoise_coef"]), constrain=diffusion.clip_x_0
    )
    sampler = samplers.ancestral(process)
    assert sampler.num_steps == 20
    np.testing.assert_array_equal(sampler.timesteps, np.arange(20))
    step = jax.jit(functools.partial(sampler.step, predict_fn))
    first, *noise = chain["noise_sequence"]
    carry = sampler.init(jnp.asarray(first))
    for k, (i, eps) in enumerate(zip(reversed(range(20)), noise, strict=True)):
        carry, x_0 = step(carry, i, eps)
        if official == "eps_fixedlarge":
            np.testing.assert_allclose(sampler.read(carry), chain[f"{official}/trajectory"][k], rtol=0, atol=3e-5)
            expected = chain[f"{official}/trajectory_pred_xstart"][k]
            np.testing.assert_allclose(x_0, expected, rtol=0, atol=3e-5)
    np.testing.assert_allclose(sampler.read(carry), chain[f"{official}/p_sample_loop"], rtol=0, atol=3e-5)


def test_a_step_is_a_draw_from_p():
    """With a step of its own for each image; at t = 0 it is the mean."""
    process, rng = diffusion.make_process(beta_schedule("linear", 1000)), np.random.default_rng(0)
    mean, log_variance, x_0, x_t, noise = rng.standard_normal((5, 3, 4, 5, 2)).astype(np.float32)
    prediction = diffusion.Prediction(mean, np.exp(log_variance), log_variance, x_0)
    sampler = samplers.ancestral(process)
    i = jnp.array([0, 1, 999])
    carry, predicted = sampler.step(lambda x, t: prediction, sampler.init(x_t), i, noise)
    expected = mean + np.array([0, 1, 1]).reshape(3, 1, 1, 1) * np.exp(0.5 * log_variance) * noise
    np.testing.assert_allclose(sampler.read(carry), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predicted, x_0)


def test_it_is_the_sampler_of_every_loop_unless_another_is_given():
    process = diffusion.make_process(beta_schedule("linear", 10))
    denoise_fn = fixed_denoise_fn(np.array([0.3, 0.2, 0.5, 0.0, 0.0, 0.0]))
    draw = functools.partial(
        sampling.sample_loop, process, denoise_fn, keys=sampling.image_keys(0, np.arange(2)), shape=(4, 6, 1)
    )
    np.testing.assert_array_equal(draw(), draw(sampler=samplers.ancestral(process)))
