"""Samplers that take Langevin steps, to which Section 3.2 of Ho et al. 2020 compares a step of Algorithm 2.

Annealed Langevin dynamics (Song and Ermon 2019, arXiv:1907.05600) and a predictor-corrector (Song et al. 2021,
arXiv:2011.13456). Both move along the score, -eps / sqrt(1 - alpha-bar), and add noise that outweighs it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn, Process
from ddpm_jax.samplers.ancestral import posterior_weights
from ddpm_jax.samplers.levels import checked, finite_ratio, levels_at
from ddpm_jax.samplers.sampler import Sampler, timestep_at, unchanged, weights_at


def langevin(process: Process, timesteps: np.ndarray, *, num_updates: int = 10, step_size: float = 0.2) -> Sampler:
    """Makes annealed Langevin dynamics: M updates at each of K noise levels, and at last the x_0 that is predicted.

    In x / signal, whose noise has the deviation r, an update adds (step_size r^2 / 2) score + sqrt(step_size) r z
    (Song and Ermon 2019, Algorithm 1, where step_size is epsilon / sigma_L^2). Between levels x / signal stays.

    Args:
        process: of T timesteps, that does not end in pure noise.
        timesteps: [K], rising, in [0, T - 1].
        num_updates: M, at least 1.
        step_size: above 0. The variance comes out too large, by about a share of step_size / 4.

    Returns:
        A sampler of K M + 1 steps, each of which calls the network once.

    Raises:
        ValueError: for timesteps that do not fit, M < 1, or a step size that is not above 0.
    """
    if num_updates < 1 or not step_size > 0.0:
        raise ValueError(f"num_updates={num_updates} must be at least 1, and step_size={step_size} above 0.")
    timesteps = checked(process, timesteps)
    level = levels_at(process, timesteps)
    lower = np.append(level.signal[0], level.signal[:-1])
    to = np.stack([lower, *[level.signal] * (num_updates - 1)], axis=1).ravel()  # the last update leads a level down
    ratio, signal = (np.repeat(each, num_updates) for each in (finite_ratio(level), level.signal))
    updates = to[:, None] * np.stack([1.0 / signal, -step_size * ratio / 2.0, np.sqrt(step_size) * ratio], axis=1)
    table = np.concatenate([[[1.0 / level.signal[0], -level.ratio[0], 0.0]], updates])
    called = np.append(timesteps[0], np.repeat(timesteps, num_updates))

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        predicted = predict_fn(x_t, timestep_at(called, i, x_t))
        of_x_t, of_eps, of_noise = weights_at(table, i, x_t)
        return of_x_t * x_t + of_eps * predicted.eps + of_noise * noise, predicted.x_0

    return Sampler(called, unchanged, step, unchanged)


def predictor_corrector(
    process: Process, timesteps: np.ndarray, *, num_corrections: int = 1, signal_to_noise: float = 0.16
) -> Sampler:
    """Makes the predictor-corrector: M Langevin steps at each of K timesteps, then an ancestral step to the next.

    The corrector is Algorithm 5 of Song et al. 2021: with g the score and z the noise, x + e g + sqrt(2 e) z, where
    e = 2 (1 - beta) (r |z| / |g|)^2. The norms are those of each image, so that it does not depend on the batch. The
    predictor is `ancestral`; where variances are learned, with those of `fixedsmall`.

    Args:
        process: of T timesteps.
        timesteps: [K], rising, in [0, T - 1].
        num_corrections: M, at least 0.
        signal_to_noise: r, above 0.

    Returns:
        A sampler of K (M + 1) steps, each of which calls the network once.

    Raises:
        ValueError: for timesteps that do not fit, M < 0, or an r that is not above 0.
    """
    if num_corrections < 0 or not signal_to_noise > 0.0:
        raise ValueError(
            f"num_corrections={num_corrections} must be at least 0, signal_to_noise={signal_to_noise} above 0."
        )
    timesteps = checked(process, timesteps)
    level = levels_at(process, timesteps)
    kept = (level.signal / level.after_step().signal) ** 2  # 1 - beta
    weights = posterior_weights(process, timesteps, large=process.var_type == "fixedlarge")
    per_step = np.concatenate([weights, level.noise[:, None], kept[:, None]], axis=1)  # [K, 5]
    table = np.repeat(per_step, num_corrections + 1, axis=0)
    called = np.repeat(timesteps, num_corrections + 1)

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        predicted = predict_fn(x_t, timestep_at(called, i, x_t))
        of_x_0, of_x_t, deviation, noise_level, kept = weights_at(table, i, x_t)
        score = -predicted.eps / noise_level
        size = 2.0 * kept * _mean_square(noise) / jnp.maximum(_mean_square(score), 1e-20) * signal_to_noise**2
        corrected = x_t + size * score + jnp.sqrt(2.0 * size) * noise
        advanced = of_x_0 * predicted.x_0 + of_x_t * x_t + deviation * noise
        predicts = jnp.broadcast_to(i, x_t.shape[:1])[:, None, None, None] % (num_corrections + 1) == 0
        return jnp.where(predicts, advanced, corrected), predicted.x_0

    return Sampler(called, unchanged, step, unchanged)


def _mean_square(x: jax.Array) -> jax.Array:
    return jnp.mean(x**2, axis=(1, 2, 3), keepdims=True)  # [B, 1, 1, 1]
