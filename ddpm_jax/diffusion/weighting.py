"""Weights of the squared error at each t, by the signal-to-noise ratio of x_t: SNR = alpha-bar / (1 - alpha-bar)."""

import math
import re

import jax
import jax.numpy as jnp

from ddpm_jax.diffusion.process import Process


def loss_weights(process: Process, weighting: str) -> jax.Array:
    """Computes what the squared error of the network's prediction is multiplied by, [T] float32.

    Each is one weight of the error of x_0, whatever the network predicts: the squared error of eps is SNR times that
    of x_0, that of v 1 + SNR times.

    Args:
        process: coefficients, and what the network predicts.
        weighting: `min_snr_<gamma>`, such as `min_snr_5`: min(SNR, gamma) times the error of x_0 (Hang et al. 2023,
            arXiv:2303.09556, who have gamma = 5); `p2_<gamma>`, such as `p2_1`: 1 / (1 + SNR)^gamma times that of eps
            (Choi et al. 2022, arXiv:2204.00227, with their k = 1).

    Raises:
        ValueError: if it is written otherwise.
    """
    kind, gamma = parse(weighting)
    log_snr = process.log_snr
    log_one_plus_snr = jnp.logaddexp(log_snr, 0.0)
    log_weight = jnp.minimum(log_snr, math.log(gamma)) if kind == "min_snr" else log_snr - gamma * log_one_plus_snr
    match process.mean_type:  # the logarithm of its squared error, where that of x_0 is 1
        case "eps":
            log_error = log_snr
        case "xstart":
            log_error = jnp.zeros_like(log_snr)
        case "xprev":
            log_error = 2.0 * jnp.log(process.posterior_mean_coef1)
        case "v":
            log_error = log_one_plus_snr
    return jnp.exp(log_weight - log_error)


def parse(weighting: str) -> tuple[str, float]:
    """Takes a weighting apart into its kind and gamma.

    Raises:
        ValueError: as `loss_weights` does.
    """
    match = re.fullmatch(r"(min_snr|p2)_([0-9]{1,9}(?:\.[0-9]{1,9})?)", weighting)
    if not match or not float(match[2]) > 0.0:
        raise ValueError(
            f"The loss weighting {weighting!r:.100} must be '', min_snr_GAMMA or p2_GAMMA with a GAMMA above 0, such "
            "as min_snr_5 or p2_1."
        )
    return match[1], float(match[2])
