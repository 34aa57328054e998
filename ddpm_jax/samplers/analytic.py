"""The optimal variances of ancestral steps (Bao et al. 2022, Analytic-DPM, arXiv:2201.06503), in float64 NumPy.

The best reverse step from t has the variance of q(x_s | x_t, x_0), and what its mean loses by not knowing x_0: the
squared factor of x_0 in that mean times E[Cov(x_0 | x_t)]. For the exact network this follows from the mean square of
its eps, Gamma_t = E|eps(x_t, t)|^2 / D: E[tr Cov(x_0 | x_t)] / D = (1 - alpha-bar) / alpha-bar (1 - Gamma_t).
"""

import math

import numpy as np

from ddpm_jax.diffusion import Process
from ddpm_jax.samplers.ancestral import posterior_weights
from ddpm_jax.samplers.levels import checked, levels_at

_LEVEL = 2.0 / 255.0  # of 8-bit pixels in [-1, 1]


def x_0_variances(process: Process, gamma: np.ndarray) -> np.ndarray:
    """Computes E[tr Cov(x_0 | x_t)] / D at each t from Gamma [T], float64 [T], within the bounds of Theorem 2.

    They are 0 and the noise in x_t / signal, which a Gamma outside 0..1 would leave; and 1, the most that data in
    [-1, 1] can have.
    """
    ratio = levels_at(process, np.arange(process.num_timesteps)).ratio
    with np.errstate(invalid="ignore"):
        most = np.minimum(ratio**2, 1.0)
        return np.clip(np.nan_to_num(ratio**2 * (1.0 - np.asarray(gamma, np.float64)), nan=1.0), 0.0, most)


def optimal_variances(
    process: Process, timesteps: np.ndarray, x_0_variance: np.ndarray, *, last_levels: float = 1.0
) -> np.ndarray:
    """Computes the variances of ancestral steps at some timesteps, float64 [K], for `samplers.ancestral`.

    Args:
        process: of T timesteps.
        timesteps: int [K], rising, in [0, T - 1].
        x_0_variance: [T], from `x_0_variances`.
        last_levels: the last step with noise is bounded so that it moves a pixel by so many of 256 levels on average,
            1 or 2 (Appendix F.2); inf: not at all.

    Returns:
        Of step i from timesteps[i] down. Step 0 leads to x_0, and its variance is of the decoder: none is added there.

    Raises:
        ValueError: for timesteps that are not whole, or do not fit.
    """
    timesteps = checked(process, timesteps)
    if timesteps.dtype.kind != "i":
        raise ValueError("Variances are measured at whole timesteps alone.")
    of_x_0, _, deviation = posterior_weights(process, timesteps, large=False).T
    variances = deviation**2 + of_x_0**2 * np.asarray(x_0_variance, np.float64)[timesteps]
    variances[1:2] = np.minimum(variances[1:2], (last_levels * _LEVEL) ** 2 * math.pi / 2.0)  # E|sigma eps|
    return variances
