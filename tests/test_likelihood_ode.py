"""The likelihood under the probability-flow ODE, against closed forms."""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import diffusion, likelihood, sampling
from ddpm_jax.schedule import beta_schedule
from ddpm_jax.unet import UNet

PROCESS = diffusion.make_process(beta_schedule("linear", 1000))
BITS = np.log(2.0)


def linear_network(mean, covariance):
    """Makes E[eps | x_t] for images of n pixels that are N(mean [n], covariance [n, n])."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors, mean = (jnp.asarray(each, jnp.float32) for each in (values, vectors, mean))

    def denoise_fn(x_t, t):
        signal, noise = (each[:, :, 0, 0] for each in diffusion.signal_and_noise(PROCESS, t))  # [B, 1]
        centred = (x_t.reshape(len(x_t), -1) - signal * mean[None]) @ vectors
        return (noise * centred / (signal**2 * values[None] + noise**2) @ vectors.T).reshape(x_t.shape)

    return denoise_fn


def log_likelihood(x, mean, covariance):
    """Computes log p under the exact flow from t = 0 to T - 1, and a standard normal there; x [B, n]."""
    first, last = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))[[0, -1]]
    values, vectors = np.linalg.eigh(covariance)
    scale = np.sqrt((last * values + 1.0 - last) / (first * values + 1.0 - first))
    latent = scale * ((x - np.sqrt(first) * mean) @ vectors) + np.sqrt(last) * mean @ vectors
    return -0.5 * (latent**2).sum(axis=1) - 0.5 * len(mean) * np.log(2 * np.pi) + np.log(scale).sum()


def test_independent_pixels_have_the_recorded_likelihood(golden):
    """Their Jacobian is diagonal, so that a probe of +-1 makes no error."""
    recorded = golden("samplers")
    x_0 = (recorded["gaussian_oracle/likelihood/pixels"] / 127.5 - 1.0).astype(np.float32)
    mean, deviation = (np.tile(recorded[f"gaussian_oracle/{name}"], 12) for name in ("mu", "s"))
    network, keys = linear_network(mean, np.diag(deviation**2)), sampling.image_keys(0, np.arange(3))
    bpd = functools.partial(likelihood.ode_bpd, PROCESS, network, x_0=x_0, keys=keys, dequantize=False)
    expected = recorded["gaussian_oracle/likelihood/discrete_ends/bpd_8bit"]
    np.testing.assert_allclose(jax.jit(functools.partial(bpd, num_steps=150))()[:, 0], expected, rtol=2e-5, atol=1e-4)


def test_the_probes_are_right_on_average_and_their_standard_error_is_known():
    """Pixels that depend on each other; an image's numbers are its own."""
    mean, root = np.full(6, 0.2), np.random.default_rng(0).uniform(-0.3, 0.3, (6, 6))
    covariance = root @ root.T + 0.05 * np.eye(6)
    x_0 = np.random.default_rng(1).multivariate_normal(mean, covariance, 2).astype(np.float32).reshape(2, 2, 3, 1)
    keys = sampling.image_keys(0, np.arange(2))
    settings = dict(num_steps=40, num_probes=200, dequantize=False)
    bpd = jax.jit(functools.partial(likelihood.ode_bpd, PROCESS, linear_network(mean, covariance), **settings))
    by_probe = np.asarray(bpd(x_0=x_0, keys=keys))
    assert by_probe.shape == (2, 200)
    expected = np.log2(127.5) - log_likelihood(x_0.reshape(2, 6), mean, covariance) / (6 * BITS)
    measured = likelihood.mean_over_images(by_probe.T)
    assert np.all(measured.standard_error > 1e-3)
    assert np.all(np.abs(measured.mean - expected) < 4 * measured.standard_error + 1e-3)
    np.testing.assert_allclose(bpd(x_0=x_0[1:], keys=keys[1:]), by_probe[1:], atol=1e-4)


def test_uniform_noise_fills_the_gaps_between_8_bit_values():
    x_0, keys = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 4, 6, 1), sampling.image_keys(0, np.arange(1))
    bpd = jax.jit(
        functools.partial(likelihood.ode_bpd, PROCESS, lambda x, t: 0.01 * jnp.tanh(x), keys=keys, num_steps=2),
        static_argnames="dequantize",
    )
    normal = np.asarray(sampling.noise(keys, 0, (4, 6, 1), stream=sampling.ODE))
    uniform = np.vectorize(statistics.NormalDist().cdf)(normal)
    assert uniform.min() < 0.2
    assert uniform.max() > 0.8
    added = (x_0 + (uniform - 0.5) / 127.5).astype(np.float32)
    np.testing.assert_allclose(bpd(x_0=x_0), bpd(x_0=added, dequantize=False), rtol=1e-6)
    assert np.abs(bpd(x_0=x_0) - bpd(x_0=x_0, dequantize=False)) > 1e-7


def test_the_u_net_is_differentiable_in_forward_mode():
    """Its derivative in a direction is that of a difference, also through attention and a change of resolution."""
    model = UNet(1, ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,))
    rng, t = np.random.default_rng(0), jnp.array([3.5, 700.25])
    x, tangent = rng.standard_normal((2, 2, 8, 8, 1)).astype(np.float32)
    params = jax.tree.map(
        lambda leaf: 0.2 * jnp.asarray(rng.standard_normal(leaf.shape), jnp.float32),
        jax.eval_shape(model.init, jax.random.key(0), x, t)["params"],
    )

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster
    def derivatives(x, tangent):
        apply = lambda x: model.apply({"params": params}, x, t)  # noqa: E731
        _, derivative = jax.jvp(apply, (x,), (tangent,))
        return derivative, (apply(x + 1e-2 * tangent) - apply(x - 1e-2 * tangent)) / 2e-2

    derivative, difference = derivatives(x, tangent)
    np.testing.assert_allclose(derivative, difference, atol=2e-2 * np.abs(difference).max())


@pytest.mark.parametrize("num_steps", [0, 1000])
def test_an_impossible_number_of_steps_is_refused(num_steps):
    x_0, keys = np.zeros((1, 2, 2, 1), np.float32), sampling.image_keys(0, np.arange(1))
    with pytest.raises(ValueError, match=f"num_steps={num_steps} must be from 1 to 999"):
        likelihood.ode_bpd(PROCESS, lambda x, t: x, x_0=x_0, keys=keys, num_steps=num_steps)
