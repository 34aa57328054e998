"""Noise levels and timesteps: what samplers compute their coefficients from, beforehand and in float64."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.diffusion import Process, log_alphas_cumprod

SPACINGS = ("linspace", "uniform", "trailing", "quadratic", "logsnr", "karras")


class Levels(NamedTuple):
    """K noise levels, x = signal * x_0 + noise * eps; float64 [K] each, in the order of the timesteps."""

    signal: np.ndarray  # sqrt(alpha-bar)
    noise: np.ndarray  # sqrt(1 - alpha-bar)

    @property
    def ratio(self) -> np.ndarray:
        """Computes noise / signal, which Karras et al. 2022 call sigma: the noise in x / signal; it may be infinite."""
        with np.errstate(divide="ignore"):
            return self.noise / self.signal

    @property
    def log_snr(self) -> np.ndarray:
        """Computes log(signal / noise), which DPM-Solver calls lambda; infinite without noise."""
        with np.errstate(divide="ignore"):
            return np.log(self.signal) - np.log(self.noise)

    def after_step(self) -> "Levels":
        """Returns the level at which step i ends, where it begins at level i: the one before, or at last no noise."""
        return Levels(np.append(1.0, self.signal[:-1]), np.append(0.0, self.noise[:-1]))


def levels_at(process: Process, timesteps: np.ndarray) -> Levels:
    """Computes the levels of timesteps [K], in [0, T - 1]; between whole ones log alpha-bar is interpolated."""
    log_signal = np.interp(timesteps, np.arange(process.num_timesteps), log_alphas_cumprod(process))
    return Levels(np.exp(0.5 * log_signal), np.sqrt(-np.expm1(log_signal)))


def finite_ratio(level: Levels) -> np.ndarray:
    """Returns noise / signal, for samplers that work in x / signal.

    Raises:
        ValueError: if it is not finite.
    """
    if not np.isfinite(level.ratio).all():
        raise ValueError("x / signal needs a schedule that does not end in pure noise, at its timesteps; jsd does.")
    return level.ratio


def timesteps_at(process: Process, ratio: np.ndarray) -> np.ndarray:
    """Finds the timesteps, float64 [K] in [0, T - 1], whose noise / signal is `ratio` [K]: inverts `levels_at`."""
    return np.interp(np.log1p(ratio**2), -log_alphas_cumprod(process), np.arange(process.num_timesteps))


def checked(process: Process, timesteps: np.ndarray | None) -> np.ndarray:
    """Returns the timesteps [K] of a sampler, int32 or float64; all of the process for None.

    Raises:
        ValueError: unless they rise, and lie in [0, T - 1].
    """
    last = process.num_timesteps - 1
    timesteps = np.arange(last + 1) if timesteps is None else np.asarray(timesteps)
    timesteps = timesteps.astype(np.int32 if np.issubdtype(timesteps.dtype, np.integer) else np.float64)
    fits = timesteps.ndim == 1 and len(timesteps) and timesteps[0] >= 0 and timesteps[-1] <= last
    if not (fits and np.all(np.diff(timesteps) > 0)):
        raise ValueError(f"A sampler's timesteps must rise from 0 or more to at most {last}; got {timesteps!r:.200}.")
    return timesteps


def spaced(process: Process, num_steps: int, spacing: str) -> np.ndarray:
    """Chooses K of the timesteps of a process.

    Args:
        process: of T timesteps.
        num_steps: K, from 2 to T; 1 is possible with `trailing`.
        spacing: `linspace`, from 0 to T - 1 with equal steps, rounded; `uniform`, floor(i T / K), DDIM's, which ends
            short of T - 1; `trailing`, round(T - i T / K) - 1, which begins short of 0; `quadratic`, DDIM's for
            CIFAR-10, the squares of equal steps up to 0.8 T, where several may be one, which is then taken once;
            `logsnr`, equal steps of the logarithm of noise / signal; `karras`, of its seventh root (Karras et al. 2022,
            Eq. 5), from the least noise of the process to its most.

    Returns:
        Rising, int32 [K]; for the last two, which lie between whole timesteps, float64.

    Raises:
        ValueError: for an unknown spacing, or a K that is out of range.
    """
    total = process.num_timesteps
    if spacing not in SPACINGS:
        raise ValueError(f"Unknown spacing {spacing!r}; choose one of {', '.join(SPACINGS)}.")
    least = 1 if spacing == "trailing" else 2
    if not least <= num_steps <= total:
        raise ValueError(f"steps={num_steps} with spacing={spacing!r} must be from {least} to the process's {total}.")
    match spacing:
        case "linspace":
            timesteps = np.linspace(0, total - 1, num_steps).round()
        case "uniform":
            timesteps = np.arange(num_steps) * total // num_steps
        case "trailing":
            timesteps = np.round(total - np.arange(num_steps) * total / num_steps)[::-1] - 1
        case "quadratic":
            timesteps = np.unique(np.floor(np.linspace(0, np.sqrt(0.8 * total), num_steps) ** 2))
        case _:
            return _spaced_by_noise(process, num_steps, spacing)
    return checked(process, timesteps.astype(np.int32))


def _spaced_by_noise(process: Process, num_steps: int, spacing: str) -> np.ndarray:
    first, last = levels_at(process, np.array([0, process.num_timesteps - 1])).ratio
    if not np.isfinite(last):
        raise ValueError(f"spacing={spacing!r} needs a schedule that does not end in pure noise; jsd does.")
    if spacing == "logsnr":
        ratio = np.geomspace(first, last, num_steps)
    else:
        ratio = np.linspace(first ** (1 / 7), last ** (1 / 7), num_steps) ** 7
    timesteps = timesteps_at(process, ratio)
    timesteps[[0, -1]] = 0, process.num_timesteps - 1
    return checked(process, timesteps)
