"""Gaussians: the divergence between two, and the discretized one that decodes pixels (Ho et al. 2020, Section 3.3)."""

import math

import jax
import jax.numpy as jnp

from ddpm_jax.arguments import check_alike

_FLOOR = 1e-12  # of a pixel's probability, as in the official code: no pixel costs more than 40 bits


def normal_kl(*, mean1: jax.Array, log_variance1: jax.Array, mean2: jax.Array, log_variance2: jax.Array) -> jax.Array:
    """Computes KL(N(mean1, exp(log_variance1)) || N(mean2, exp(log_variance2))), elementwise, in nats."""
    return 0.5 * (
        log_variance2
        - log_variance1
        - 1.0
        + jnp.exp(log_variance1 - log_variance2)
        + (mean1 - mean2) ** 2 * jnp.exp(-log_variance2)
    )


def approx_standard_normal_cdf(x: jax.Array) -> jax.Array:
    """Approximates the standard normal distribution function by tanh (Page 1977), as the official code does."""
    return 0.5 * (1.0 + jnp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian_log_likelihood(x_0: jax.Array, *, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Computes log p(x_0) of 8-bit pixels under a Gaussian, integrated over each pixel's bin (Eq. 13).

    As in the official release, a bin reaches 1/255 to both sides, the first and the last one to infinity, and its
    probability is at least 1e-12.

    Args:
        x_0: any shape, pixels / 127.5 - 1, in [-1, 1].
        mean: of the Gaussian, shaped like x_0.
        log_scale: the natural logarithm of its standard deviation, shaped like x_0.

    Returns:
        The logarithm of each pixel's probability in nats, shaped like x_0.
    """
    check_alike(x_0=x_0, mean=mean, log_scale=log_scale)
    centred, inverse_scale = x_0 - mean, jnp.exp(-log_scale)
    below_upper = approx_standard_normal_cdf(inverse_scale * (centred + 1.0 / 255.0))
    below_lower = approx_standard_normal_cdf(inverse_scale * (centred - 1.0 / 255.0))
    probability = jnp.where(
        x_0 < -0.999, below_upper, jnp.where(x_0 > 0.999, 1.0 - below_lower, below_upper - below_lower)
    )
    return jnp.log(jnp.maximum(probability, _FLOOR))
