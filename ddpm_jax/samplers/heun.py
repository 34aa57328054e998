"""Heun's method, also with noise on the way, and Runge-Kutta's: ODE solvers in x / signal (Karras et al. 2022).

arXiv:2206.00364. With x / signal = x_0 + ratio * eps, the probability-flow ODE is d(x / signal) / d ratio = eps. The
ratio, noise / signal, is the paper's sigma.
"""

import numpy as np

from ddpm_jax.diffusion import Process
from ddpm_jax.samplers.levels import checked, finite_ratio, levels_at, timesteps_at
from ddpm_jax.samplers.sampler import Sampler
from ddpm_jax.samplers.stages import Stages, staged


def heun(
    process: Process,
    timesteps: np.ndarray,
    *,
    churn: float = 0.0,
    churn_from: float = 0.0,
    churn_to: float = np.inf,
    churn_noise: float = 1.0,
) -> Sampler:
    """Makes the sampler of Algorithm 2, or without churn Algorithm 1: 2 K - 1 calls of the network in K steps.

    Each step first raises the noise, by a share of it, and then goes down by Heun's method; the last, to x_0, by
    Euler's. The noise is never raised above that of the process's last timestep.

    Args:
        process: of T timesteps, that does not end in pure noise.
        timesteps: [K], rising, in [0, T - 1].
        churn: S_churn, of all steps together; 0: none.
        churn_from: S_min, the least noise / signal that is raised.
        churn_to: S_max, the greatest.
        churn_noise: S_noise, the standard deviation of the added noise.

    Raises:
        ValueError: for timesteps that do not fit, or a churn below 0.
    """
    if churn < 0.0:
        raise ValueError(f"churn={churn} must be at least 0.")
    timesteps = checked(process, timesteps)
    ratio, most = _ratios(process, timesteps)
    share = min(churn / len(timesteps), np.sqrt(2.0) - 1.0)
    raised = np.where((ratio >= churn_from) & (ratio <= churn_to), np.minimum(ratio * (1.0 + share), most), ratio)
    after = np.append(0.0, ratio[:-1])
    h, signal = after - raised, _signal(after)
    of_x = signal / _signal(raised)
    weights = np.stack([[of_x, signal * h, 0.0 * h], [of_x, signal * h / 2.0, signal * h / 2.0]]).transpose(2, 0, 1)
    first = timesteps_at(process, raised) if churn else timesteps
    added = np.sqrt(np.maximum(raised**2 - ratio**2, 0.0)) * churn_noise
    stages = Stages(
        timesteps=np.stack([first, np.append(timesteps[0], timesteps[:-1])], axis=1),
        weights=weights,
        needed=np.stack([after >= 0.0, after > 0.0], axis=1),
        start=_signal(raised)[:, None] * np.stack([1.0 / _signal(ratio), added], axis=1) if churn else None,
    )
    return staged(timesteps, stages)


def probability_flow(process: Process, timesteps: np.ndarray) -> Sampler:
    """Makes the solver of the probability-flow ODE (Song et al. 2021, Eq. 13) by Runge and Kutta's method of order 4.

    It calls the network four times in each of K steps, and once in the last, to x_0, which is Euler's.

    Args:
        process: of T timesteps, that does not end in pure noise.
        timesteps: [K], rising, in [0, T - 1].

    Raises:
        ValueError: for timesteps that do not fit.
    """
    timesteps = checked(process, timesteps)
    ratio, _ = _ratios(process, timesteps)
    after = np.append(0.0, ratio[:-1])
    h, half = after - ratio, (after + ratio) / 2.0
    last = np.arange(len(timesteps)) == 0
    leads_to = np.stack([np.where(last, 0.0, half), half, after, after], axis=1)  # [K, 4]
    shares = np.array([[1 / 2, 0, 0, 0], [0, 1 / 2, 0, 0], [0, 0, 1, 0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]])
    weights = h[:, None, None] * shares  # [K, 4, 4]
    weights[0, 0] = h[0], 0.0, 0.0, 0.0
    of_x = np.broadcast_to(1.0 / _signal(ratio)[:, None, None], (len(h), 4, 1))
    between = timesteps_at(process, half)
    stages = Stages(
        timesteps=np.stack([timesteps, between, between, np.append(timesteps[0], timesteps[:-1])], axis=1),
        weights=_signal(leads_to)[:, :, None] * np.concatenate([of_x, weights], axis=2),
        needed=np.stack([np.ones_like(last), ~last, ~last, ~last], axis=1),
    )
    return staged(timesteps, stages)


def _signal(ratio: np.ndarray) -> np.ndarray:
    """Computes sqrt(alpha-bar) from noise / signal."""
    return 1.0 / np.sqrt(1.0 + ratio**2)


def _ratios(process: Process, timesteps: np.ndarray) -> tuple[np.ndarray, float]:
    """Computes noise / signal at the timesteps, and its greatest value in the process."""
    ratio = finite_ratio(levels_at(process, timesteps))
    return ratio, float(levels_at(process, np.array([process.num_timesteps - 1])).ratio[0])
