"""The K timesteps with the best bound, by dynamic programming (Watson et al. 2021, arXiv:2106.03802), in float64 NumPy.

The bound of a process that has some timesteps alone is a sum over neighbours s < t of KL(q(x_s | x_t, x_0) || p), the
prior's term of the highest and the decoder's of the lowest (Eq. 5 of Ho et al. 2020). The two Gaussians differ in their
means by the factor of x_0 times the error of its prediction from x_t. With p's variance the best one (`analytic`),
    L(s, t) = 1/2 log(1 + (SNR_s - SNR_t) mse_t),    SNR = alpha-bar / (1 - alpha-bar),
a pixel, where mse_t is the mean squared error of x_0: T measured numbers give all pairs. Both ends are always among the
timesteps, T - 1, where the chain begins with noise, and 0, whose step is the decoder's; so their terms are the same for
all choices.
"""

import math
from collections.abc import Sequence

import numpy as np

from ddpm_jax.diffusion import Process
from ddpm_jax.samplers.levels import levels_at


def bound_terms(process: Process, mse: np.ndarray) -> np.ndarray:
    """Computes L(s, t) in bits/dim, float64 [T, T], from the errors [T] of x_0; infinite unless s < t."""
    level = levels_at(process, np.arange(process.num_timesteps))
    snr = (level.signal / level.noise) ** 2
    gained = np.maximum(snr[:, None] - snr[None, :], 0.0)
    terms = 0.5 * np.log1p(gained * np.asarray(mse, np.float64)[None, :]) / math.log(2.0)
    return np.where(np.arange(len(snr))[:, None] < np.arange(len(snr))[None, :], terms, np.inf)


def bound(terms: np.ndarray, timesteps: np.ndarray) -> float:
    """Sums the terms between timesteps [K], rising; in bits/dim."""
    timesteps = np.asarray(timesteps)
    return float(terms[timesteps[:-1], timesteps[1:]].sum())


def check_counts(counts: Sequence[int], num_timesteps: int) -> None:
    """Raises ValueError unless there are counts of timesteps, each from 2 to T."""
    if not counts or min(counts) < 2 or max(counts) > num_timesteps:
        raise ValueError(f"steps={','.join(map(str, counts))} must be numbers from 2 to the process's {num_timesteps}.")


def best_timesteps(terms: np.ndarray, counts: Sequence[int]) -> dict[int, np.ndarray]:
    """Finds the timesteps with the least bound for each K of `counts`, in one pass over 2..max(counts) (Algorithm 1).

    Args:
        terms: [T, T], from `bound_terms`.
        counts: each from 2 to T.

    Returns:
        For each K int32 [K], rising from 0 to T - 1.

    Raises:
        ValueError: if a K is out of range.
    """
    total = len(terms)
    check_counts(counts, total)
    least = np.where(np.arange(total) == 0, 0.0, np.inf)  # of a path of k timesteps from 0 to t
    lower, found = [], {}
    for k in range(2, max(counts) + 1):
        through = least[:, None] + terms  # [T, T], of s, t
        lower.append(through.argmin(axis=0))
        least = through.min(axis=0)
        if k in counts:
            path = [total - 1]
            for below in reversed(lower):
                path.append(int(below[path[-1]]))
            found[k] = np.array(path[::-1], np.int32)
    return found
