"""The network of the recorded vectors, the exact one of Gaussian data, and a sampler's states step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import diffusion
from ddpm_jax.schedule import beta_schedule


@functools.cache
def process(var_type="fixedlarge"):
    """Makes the process of the recorded vectors: 1000 steps, linear."""
    return diffusion.make_process(beta_schedule("linear", 1000), var_type=var_type)


def network(golden):
    """Makes the network of the recorded vectors, elementwise, of any t."""
    a, b, w, p, d = (golden[f"diffusers/coef/{name}"] for name in "abwpd")
    broadcast = lambda coefficient: jnp.asarray(coefficient).reshape(1, 1, 1, -1)  # noqa: E731

    def denoise_fn(x, t):
        t = t.astype(jnp.float32)[:, None, None, None]
        wave = jnp.sin(broadcast(w) * t + broadcast(p))
        return broadcast(a) * x + broadcast(d) * jnp.tanh(x) + broadcast(b) * wave

    return denoise_fn


def exact_network(of, *, mean, deviation):
    """Makes E[eps | x_t] for x_0 ~ N(mean [C], deviation^2 [C]) in each pixel, at any t."""
    mean, deviation = (jnp.asarray(value, jnp.float32).reshape(1, 1, 1, -1) for value in (mean, deviation))

    def denoise_fn(x_t, t):
        signal, noise = diffusion.signal_and_noise(of, t)
        return noise * (x_t - signal * mean) / (signal**2 * deviation**2 + noise**2)

    return denoise_fn


def states(sampler, denoise_fn, x_t, *, noise=None, clip=False, of=None, start=None):
    """Takes the steps one after another; returns x_t before the first and after each, [1 + steps, B, H, W, C].

    `noise` is in the order in which it is used; the first step is `start`, or the first of all.
    """
    predict_fn = diffusion.make_predict_fn(
        of or process(), denoise_fn, constrain=diffusion.clip_x_0 if clip else None
    )  # fmt: skip
    count = sampler.num_steps if start is None else start + 1
    noise = jnp.zeros((count, *x_t.shape)) if noise is None else jnp.asarray(noise[:count])

    @jax.jit
    def run(x_t):
        def step(carry, inputs):
            carry, _ = sampler.step(predict_fn, carry, *inputs)
            return carry, sampler.read(carry)

        return jax.lax.scan(step, sampler.init(x_t), (jnp.arange(count - 1, -1, -1), noise))[1]

    return np.concatenate([x_t[None], run(jnp.asarray(x_t, jnp.float32))])


def error(actual, expected):
    """Computes the largest difference, as a share of the largest value if that is above 1."""
    assert actual.shape == expected.shape
    return np.abs(actual - expected).max() / max(1.0, np.abs(expected).max())
