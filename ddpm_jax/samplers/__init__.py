"""Samplers: each a pair of pure functions, which `sampling` runs in one scan.

sampler.py     what a sampler is
levels.py      noise levels, and the choice of timesteps
ancestral.py   Algorithm 2 of Ho et al. 2020, at all timesteps or some
ddim.py        DDIM, and its inversion
"""

from ddpm_jax.samplers.ancestral import ancestral
from ddpm_jax.samplers.ddim import ddim, ddim_inversion
from ddpm_jax.samplers.levels import SPACINGS, spaced
from ddpm_jax.samplers.sampler import Sampler

__all__ = [
    "SPACINGS",
    "Sampler",
    "ancestral",
    "ddim",
    "ddim_inversion",
    "spaced",
]
