"""Denoise functions whose chains are known: those of the reference vectors, and the best one for a Gaussian."""

import jax.numpy as jnp
import numpy as np


def fixed_denoise_fn(coefficients: np.ndarray, learned: bool = False):
    """Makes the denoise function of the reference vectors, with a log-variance as its second half if `learned`."""
    a, b, w, c0, c1, c2 = (np.float32(value) for value in coefficients)

    def denoise_fn(x, t):
        t = w * t.astype("float32")[:, None, None, None]
        prediction, log_variance = a * x + b * jnp.sin(t), c0 + c1 * x + c2 * jnp.cos(t)
        return jnp.concatenate([prediction, log_variance], axis=-1) if learned else prediction

    return denoise_fn


def channelwise_denoise_fn(arrays, var_type: str = "fixedlarge"):
    """Makes the denoise function of the reference vectors of Improved DDPM, with coefficients [C] (`coef/...`)."""
    c = {name: jnp.asarray(arrays[f"coef/{name}"])[None, None, None] for name in ("a", "b", "d", "w", "p")}
    second = {"learned": "l", "learned_range": "r"}.get(var_type)
    c0, c1, c2 = (jnp.asarray(arrays[f"coef/{second}{i}"])[None, None, None] if second else None for i in range(3))

    def denoise_fn(x, t):
        t = t.astype("float32")[:, None, None, None]
        mean = c["a"] * x + c["d"] * jnp.tanh(x) + c["b"] * jnp.sin(c["w"] * t + c["p"])
        return jnp.concatenate([mean, c0 + c1 * jnp.tanh(x) + c2 * jnp.cos(c["w"] * t)], axis=-1) if second else mean

    return denoise_fn


def exact_denoise_fn(process, *, mean: float, deviation: float):
    """Makes the best prediction of eps from x_t, E[eps | x_t], for x_0 ~ N(mean, deviation^2) in each pixel."""

    def denoise_fn(x_t, t):
        alpha_cumprod = process.alphas_cumprod[t][:, None, None, None]
        variance = alpha_cumprod * deviation**2 + 1.0 - alpha_cumprod
        return jnp.sqrt(1.0 - alpha_cumprod) * (x_t - jnp.sqrt(alpha_cumprod) * mean) / variance

    return denoise_fn
