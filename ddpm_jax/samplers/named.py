"""Samplers by name, as a config or a command line chooses them."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.diffusion import Process
from ddpm_jax.samplers.ancestral import ancestral
from ddpm_jax.samplers.ddim import ddim
from ddpm_jax.samplers.dpm_solver import dpm_solver
from ddpm_jax.samplers.heun import heun, probability_flow
from ddpm_jax.samplers.langevin import langevin, predictor_corrector
from ddpm_jax.samplers.levels import spaced
from ddpm_jax.samplers.sampler import Sampler

# Each with its usual spacing of timesteps. 2m is DPM-Solver++ of order 2, multistep; 3s is of order 3, singlestep.
SAMPLERS = {
    "ancestral": "linspace",
    "ddim": "uniform",
    "dpm_solver_2m": "logsnr",
    "dpm_solver_3m": "logsnr",
    "dpm_solver_2s": "logsnr",
    "dpm_solver_3s": "logsnr",
    "heun": "karras",
    "heun_stochastic": "karras",
    "probability_flow": "karras",
    "langevin": "logsnr",
    "predictor_corrector": "linspace",
}
_BETWEEN = ("heun_stochastic", "probability_flow")  # ask the network between the timesteps, too
_CHURN = dict(churn=40.0, churn_from=0.05, churn_to=50.0, churn_noise=1.003)  # Karras et al. 2022, for ImageNet


def by_name(
    name: str,
    process: Process,
    *,
    steps: int = 0,
    spacing: str = "",
    eta: float = 0.0,
    timesteps: Sequence[int] = (),
    variances: Sequence[float] = (),
) -> Sampler:
    """Makes a sampler with its usual settings.

    Args:
        name: one of `SAMPLERS`.
        process: of T timesteps.
        steps: K, the number of timesteps; 0: all.
        spacing: one of `SPACINGS`; '': the usual one of the sampler.
        eta: of ddim.
        timesteps: themselves, rising, in place of `steps` and `spacing`, which are then not given.
        variances: of ancestral, one for each of these timesteps; (): the process's own.

    Raises:
        ValueError: for a name that there is not, or a choice that does not fit the process or the sampler.
    """
    if name not in SAMPLERS:
        raise ValueError(f"Unknown sampler {name!r}; choose one of {', '.join(SAMPLERS)}.")
    if eta and name != "ddim":
        raise ValueError(f"eta={eta} is of ddim alone, not of sampler={name!r}.")
    if timesteps and (steps or spacing):
        raise ValueError("timesteps stand in place of steps and spacing: give one or the other.")
    if variances and (name != "ancestral" or not timesteps):
        raise ValueError("variances are of ancestral alone, and go with timesteps.")
    if name == "ancestral" and not timesteps and steps in (0, process.num_timesteps):
        return ancestral(process)
    timesteps = (
        np.array(timesteps) if timesteps
        else spaced(process, steps or process.num_timesteps, spacing or SAMPLERS[name])
    )  # fmt: skip
    if process.mean_type == "xprev" and (timesteps.dtype.kind == "f" or name in _BETWEEN):
        raise ValueError(
            f"sampler={name!r} with spacing={spacing or SAMPLERS[name]!r} asks between whole timesteps, where a "
            "network of mean_type='xprev' has nothing to say; take spacing='linspace', or ddim."
        )
    match name:
        case "ancestral":
            return ancestral(process, timesteps, variances=np.array(variances) if variances else None)
        case "ddim":
            return ddim(process, timesteps, eta=eta)
        case "heun":
            return heun(process, timesteps)
        case "heun_stochastic":
            return heun(process, timesteps, **_CHURN)
        case "probability_flow":
            return probability_flow(process, timesteps)
        case "langevin":
            return langevin(process, timesteps)
        case "predictor_corrector":
            return predictor_corrector(process, timesteps)
    order, method = int(name[-2]), {"m": "multistep", "s": "singlestep"}[name[-1]]
    return dpm_solver(process, timesteps, order=order, method=method)
