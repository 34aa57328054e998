"""Denoising diffusion implicit models, and the way back from an image to its latent (Song, Meng, Ermon 2020).

arXiv:2010.02502.
"""

import jax
import numpy as np

from ddpm_jax.diffusion import PredictFn, Process
from ddpm_jax.samplers.levels import checked, levels_at
from ddpm_jax.samplers.sampler import Sampler, timestep_at, unchanged, weights_at


def ddim(process: Process, timesteps: np.ndarray | None = None, *, eta: float = 0.0) -> Sampler:
    """Makes the sampler of Eq. 12, which goes from any timestep to any lower one.

    Args:
        process: of T timesteps.
        timesteps: [K], rising, in [0, T - 1]; None: all.
        eta: 0, with which x_T determines x_0, to 1, with which it is ancestral sampling with `fixedsmall`.

    Raises:
        ValueError: if the timesteps do not fit, or eta is out of range.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta={eta} must be from 0 to 1.")
    timesteps = checked(process, timesteps)
    table = _weights(process, timesteps, eta)

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        predicted = predict_fn(x_t, timestep_at(timesteps, i, x_t))
        of_x_0, of_eps, deviation = weights_at(table, i, x_t)
        x_t = of_x_0 * predicted.x_0 + of_eps * predicted.eps
        return (x_t + deviation * noise if eta else x_t), predicted.x_0  # without noise, none is computed

    return Sampler(timesteps, unchanged, step, unchanged)


def _weights(process: Process, timesteps: np.ndarray, eta: float) -> np.ndarray:
    """Computes the coefficients of x_0 and eps and the standard deviation of Eq. 12 and Eq. 16, float64 [K, 3]."""
    level = levels_at(process, timesteps)
    after = level.after_step()
    beta = 1.0 - (level.signal / after.signal) ** 2
    deviation = eta * (after.noise / level.noise) * np.sqrt(beta)
    return np.stack([after.signal, np.sqrt(np.maximum(after.noise**2 - deviation**2, 0.0)), deviation], axis=1)


def ddim_inversion(process: Process, timesteps: np.ndarray | None = None) -> Sampler:
    """Makes what encodes an image: the steps of `ddim` with eta = 0 backwards, up to its first timestep.

    Each step predicts from what it has, not from what it leads to, so it inverts `ddim` up to the error of an Euler
    step. Step K - 1 takes the image to the lowest timestep; step 0 leads to the highest, where `ddim` begins.

    Args:
        process: of T timesteps.
        timesteps: [K], rising, those of the `ddim` that is to decode.

    Raises:
        ValueError: if the timesteps do not fit.
    """
    timesteps = checked(process, timesteps)
    level = levels_at(process, timesteps)
    called = np.append(timesteps[0], timesteps[:-1])[::-1]
    of_image = np.where(np.arange(len(timesteps)) == 0, level.signal, 0.0)  # the image itself, not what it implies
    of_x_0 = np.where(of_image > 0.0, 0.0, level.signal)
    table = np.stack([of_image, of_x_0, level.noise], axis=1)[::-1]

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        predicted = predict_fn(x_t, timestep_at(called, i, x_t))
        of_x_t, of_x_0, of_eps = weights_at(table, i, x_t)
        return of_x_t * x_t + of_x_0 * predicted.x_0 + of_eps * predicted.eps, predicted.x_0

    return Sampler(called, unchanged, step, unchanged)
