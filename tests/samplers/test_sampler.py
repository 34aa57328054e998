"""One scan runs any sampler: here one with a carry of two images and few steps, against the same as a Python loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import exact_denoise_fn

from ddpm_jax import diffusion, sampling
from ddpm_jax.samplers import Sampler
from ddpm_jax.schedule import beta_schedule

TIMESTEPS, SHAPE = np.array([0, 4, 7, 9], np.int32), (4, 6, 2)
PROCESS = diffusion.make_process(beta_schedule("linear", 10, beta_end=0.4))
DENOISE_FN = exact_denoise_fn(PROCESS, mean=0.3, deviation=0.5)
KEYS = sampling.image_keys(5, np.arange(3))


def remembering():
    """Makes a sampler that mixes each predicted x_0 with the one before, and adds noise but in the last step."""

    def step(predict_fn, carry, i, noise):
        x_t, before = carry
        t = jnp.asarray(TIMESTEPS)[i]
        x_0 = predict_fn(x_t, jnp.full(len(x_t), t)).x_0
        return (0.7 * x_0 + 0.2 * before + 0.1 * (i > 0) * noise, x_0), x_0

    return Sampler(timesteps=TIMESTEPS, init=lambda x_t: (x_t, jnp.zeros_like(x_t)), step=step, read=lambda c: c[0])


def as_a_loop(x_t, num_steps, clip=True):
    """Takes the same steps one after another; returns x_0, each x_t and each predicted x_0, by step."""
    predict_fn = diffusion.make_predict_fn(PROCESS, DENOISE_FN, constrain=diffusion.clip_x_0 if clip else None)
    before, latents, predicted = jnp.zeros_like(x_t), {}, {}
    for i in reversed(range(num_steps)):
        latents[i] = x_t
        predicted[i] = predict_fn(x_t, jnp.full(3, TIMESTEPS[i])).x_0
        x_t = 0.7 * predicted[i] + 0.2 * before + 0.1 * (i > 0) * sampling.noise(KEYS, i, SHAPE)
        before = predicted[i]
    return x_t, latents, predicted


def test_it_is_run_from_x_t_to_x_0():
    x_t = sampling.noise(KEYS, 10, SHAPE)  # x_T is number T, however few steps there are
    for clip in (True, False):
        x_0, latents, predicted = as_a_loop(x_t, 4, clip)
        settings = dict(keys=KEYS, shape=SHAPE, clip=clip, sampler=remembering())
        tolerance = dict(rtol=1e-5, atol=1e-5)
        drawn = jax.jit(functools.partial(sampling.sample_loop, PROCESS, DENOISE_FN, **settings))()
        np.testing.assert_allclose(drawn, x_0, **tolerance)
        for loop, expected in ((sampling.progressive_loop, predicted), (sampling.latents_loop, latents)):
            last, kept = loop(PROCESS, DENOISE_FN, timesteps=(4, 9), **settings)
            np.testing.assert_allclose(last, x_0, **tolerance)
            np.testing.assert_allclose(kept, jnp.stack([expected[1], expected[3]], axis=1), **tolerance)


@pytest.mark.parametrize("traced", [False, True])
def test_it_is_run_from_the_middle(traced):
    x_t = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    decode = functools.partial(sampling.decode, PROCESS, DENOISE_FN, keys=KEYS, sampler=remembering())
    decode = jax.jit(decode) if traced else decode
    for num_steps in (0, 1, 3):
        expected, _, _ = as_a_loop(x_t, num_steps)
        np.testing.assert_allclose(decode(x_t=x_t, num_steps=num_steps), expected, rtol=1e-5, atol=1e-5)


def test_images_to_interpolate_are_encoded_to_the_timestep_it_continues_from():
    x_0, eps = 0.1 * jnp.ones((3, *SHAPE)), jax.random.normal(jax.random.key(0), (3, *SHAPE))
    drawn = sampling.interpolate(
        PROCESS, DENOISE_FN, x_0_a=x_0, x_0_b=x_0, eps_a=eps, eps_b=eps, weight=jnp.full(3, 0.5), num_steps=3,
        keys=KEYS, sampler=remembering(),
    )  # fmt: skip
    x_t = diffusion.q_sample(PROCESS, x_0=x_0, t=jnp.full(3, 7), eps=eps)
    np.testing.assert_allclose(drawn, as_a_loop(x_t, 3)[0], rtol=1e-4, atol=1e-5)


def test_only_its_own_timesteps_can_be_kept():
    with pytest.raises(ValueError, match=r"timesteps=\[9, 8\] must be different integers in 0..9, of the sampler's"):
        sampling.progressive_loop(
            PROCESS, DENOISE_FN, keys=KEYS, shape=SHAPE, timesteps=(9, 8), sampler=remembering()
        )  # fmt: skip
