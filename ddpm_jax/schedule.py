"""Beta schedules: how much noise each step of the forward process adds, and the same with fewer steps.

Ho et al. 2020, Sections 2 and 4; `cosine` and the respacing are those of Nichol and Dhariwal 2021 (arXiv:2102.09672).
Float64 NumPy; `diffusion.make_process` derives every coefficient from the result and casts once. Index t = 0 is the
paper's t = 1.
"""

import re

import numpy as np

SCHEDULES = ("linear", "quad", "const", "warmup10", "warmup50", "jsd", "cosine")


def beta_schedule(name: str, num_timesteps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> np.ndarray:
    """Returns the variances beta_1..beta_T of the forward process (Eq. 2).

    The paper compares constant, linear and quadratic schedules and trains with `linear` (Section 4). The names and
    values agree with the official release (`get_beta_schedule` in diffusion_utils.py).

    Args:
        name: `linear` in t; `quad`, linear in the standard deviation; `const`, beta_end throughout; `warmup10` and
            `warmup50`, linear over the first 10 % or 50 % of the steps and beta_end after; `jsd`, 1/T, 1/(T-1), ..., 1
            (Sohl-Dickstein et al. 2015), and `cosine` (Nichol and Dhariwal 2021, Eq. 17), with alpha-bar in proportion
            to cos^2(pi/2 (t/T + 0.008) / 1.008) and no beta above 0.999; these two ignore both ends.
        num_timesteps: T, at least 2.
        beta_start: the first variance, in (0, 1).
        beta_end: the last variance, in [beta_start, 1).

    Returns:
        [T] float64, in (0, 1].

    Raises:
        ValueError: for an unknown name, T < 2, or ends out of range.
    """
    if num_timesteps < 2:
        raise ValueError(f"num_timesteps={num_timesteps} must be at least 2; the paper uses 1000.")
    if not 0.0 < beta_start <= beta_end < 1.0:
        raise ValueError(
            f"beta_start={beta_start} and beta_end={beta_end} must satisfy 0 < beta_start <= beta_end < 1."
        )
    match name:
        case "linear":
            return np.linspace(beta_start, beta_end, num_timesteps)
        case "quad":
            return np.linspace(np.sqrt(beta_start), np.sqrt(beta_end), num_timesteps) ** 2
        case "const":
            return np.full(num_timesteps, beta_end)
        case "warmup10" | "warmup50":
            rising = num_timesteps * int(name.removeprefix("warmup")) // 100
            rise = np.linspace(beta_start, beta_end, rising)
            return np.concatenate([rise, np.full(num_timesteps - rising, beta_end)])
        case "jsd":
            return 1.0 / np.arange(num_timesteps, 0.0, -1.0)
        case "cosine":
            fraction = np.arange(num_timesteps + 1) / num_timesteps
            alphas_cumprod = np.cos((fraction + 0.008) / 1.008 * np.pi / 2.0) ** 2
            return np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], 0.999)
    raise ValueError(f"Unknown schedule {name!r}; choose one of {', '.join(SCHEDULES)}.")


def respaced_timesteps(num_timesteps: int, sections: str) -> np.ndarray:
    """Chooses K of the T timesteps, with which a trained network makes a process of K steps.

    Nichol and Dhariwal 2021, Section 4; they are those of the paper's code.

    Args:
        num_timesteps: T.
        sections: how many from each of as many sections of (about) equal length: "250", evenly from 0 to T - 1;
            "10,10,20", evenly from the first to the last of each third. Or "ddim50", 50 at the first whole stride that
            gives so many, from 0 on.

    Returns:
        [K] int, rising, in 0..T-1.

    Raises:
        ValueError: if it is written otherwise, or there are not so many.
    """
    if match := re.fullmatch(r"ddim(\d+)", sections):
        for stride in range(1, num_timesteps + 1):
            if len(steps := np.arange(0, num_timesteps, stride)) == int(match[1]):
                return steps
        raise ValueError(f"{sections!r}: no whole stride takes {match[1]} of {num_timesteps} timesteps.")
    if not re.fullmatch(r"\d+(,\d+)*", sections):
        raise ValueError(f"The timesteps {sections!r} must be written like '250', '10,10,20' or 'ddim50'.")
    counts = [int(count) for count in sections.split(",")]
    size, longer = divmod(num_timesteps, len(counts))  # the first sections are longer by one
    sizes = [size + (i < longer) for i in range(len(counts))]
    for count, size in zip(counts, sizes, strict=True):
        if not 1 <= count <= size:
            raise ValueError(f"{sections!r}: of a section of {size} timesteps, 1 to {size} can be taken, not {count}.")
    starts = np.cumsum([0, *sizes[:-1]])
    return np.concatenate([start + _evenly(*each) for start, *each in zip(starts, sizes, counts, strict=True)])


def _evenly(size: int, count: int) -> np.ndarray:
    """Spreads `count` integers from 0 to size - 1; 0 alone if it is one."""
    strides = np.full(count, (size - 1) / max(count - 1, 1))
    strides[0] = 0.0
    return np.round(np.cumsum(strides)).astype(int)  # the strides added up, which rounds ties as the paper's code does


def respaced_betas(betas: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    """Computes the variances of the process that takes some timesteps alone: it has their alpha-bars.

    Nichol and Dhariwal 2021, Eq. 19.

    Args:
        betas: [T] of the whole process.
        timesteps: [K] int, rising, in 0..T-1.

    Returns:
        [K] float64: 1 - alpha-bar_k / alpha-bar_{k-1}.
    """
    alphas_cumprod = np.cumprod(1.0 - np.asarray(betas, np.float64))[timesteps]
    return 1.0 - alphas_cumprod / np.append(1.0, alphas_cumprod[:-1])
