"""Samplers: each a pair of pure functions, which `sampling` runs in one scan.

sampler.py     what a sampler is
levels.py      noise levels, and the choice of timesteps
ancestral.py   Algorithm 2 of Ho et al. 2020, at all timesteps or some
ddim.py        DDIM, and its inversion
dpm_solver.py  DPM-Solver++ of order 1 to 3, multistep and singlestep
heun.py        Heun's method without and with added noise, and the probability-flow ODE by Runge-Kutta
stages.py      steps that call the network several times, as the last two do
langevin.py    annealed Langevin dynamics, and a predictor-corrector
analytic.py    the optimal variances of ancestral steps
search.py      the K timesteps with the best bound
named.py       each by its name
repaint.py     RePaint, which wraps a sampler to draw the unknown pixels of images
"""

from ddpm_jax.samplers.ancestral import ancestral
from ddpm_jax.samplers.ddim import ddim, ddim_inversion
from ddpm_jax.samplers.dpm_solver import dpm_solver
from ddpm_jax.samplers.heun import heun, probability_flow
from ddpm_jax.samplers.langevin import langevin, predictor_corrector
from ddpm_jax.samplers.levels import SPACINGS, spaced
from ddpm_jax.samplers.named import SAMPLERS, by_name
from ddpm_jax.samplers.repaint import repaint
from ddpm_jax.samplers.sampler import Sampler

__all__ = [
    "SAMPLERS",
    "SPACINGS",
    "Sampler",
    "ancestral",
    "by_name",
    "ddim",
    "ddim_inversion",
    "dpm_solver",
    "heun",
    "langevin",
    "predictor_corrector",
    "probability_flow",
    "repaint",
    "spaced",
]
