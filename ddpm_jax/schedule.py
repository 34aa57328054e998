"""Beta schedules: how much noise each step of the forward process adds.

Ho et al. 2020, Sections 2 and 4. Float64 NumPy; `diffusion.make_process` derives every coefficient from the
result and casts once. Index t = 0 is the paper's t = 1.
"""

import numpy as np

SCHEDULES = ("linear", "quad", "const", "warmup10", "warmup50", "jsd")


def beta_schedule(name: str, num_timesteps: int, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> np.ndarray:
    """Returns the variances beta_1..beta_T of the forward process (Eq. 2).

    The paper compares constant, linear and quadratic schedules and trains with `linear` (Section 4). The names and
    values agree with the official release (`get_beta_schedule` in diffusion_utils.py).

    Args:
        name: `linear` in t; `quad`, linear in the standard deviation; `const`, beta_end throughout; `warmup10` and
            `warmup50`, linear over the first 10 % or 50 % of the steps and beta_end after; `jsd`, 1/T, 1/(T-1), ..., 1
            (Sohl-Dickstein et al. 2015), which ignores both ends.
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
    raise ValueError(f"Unknown schedule {name!r}; choose one of {', '.join(SCHEDULES)}.")
