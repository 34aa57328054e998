"""Samplers: each a pair of pure functions, which `sampling` runs in one scan.

sampler.py     what a sampler is
ancestral.py   Algorithm 2 of Ho et al. 2020
"""

from ddpm_jax.samplers.ancestral import ancestral
from ddpm_jax.samplers.sampler import Sampler

__all__ = ["Sampler", "ancestral"]
