"""Bits/dim of 8-bit images, [B, H, W, C] in [-1, 1], and what it consists of (Ho et al. 2020, Eq. 5, Section 4.3).

bound.py    the variational bound, term by term; `t` is 0-based: t = 0 is the decoder's L_0, t > 0 is L_t
ode.py      the likelihood under the probability-flow ODE
coding.py   rate and distortion of progressive coding; means over images

An image's numbers are a function of the image and its key alone, so they do not depend on the batch it is in.
"""

from ddpm_jax.likelihood.bound import Bound, bpd_chain, bpd_estimate, bpd_loop, bpd_term, strata
from ddpm_jax.likelihood.coding import Mean, mean_over_images, progressive_rate, progressive_rmse
from ddpm_jax.likelihood.ode import ode_bpd, ode_bpd_chain

__all__ = [
    "Bound",
    "Mean",
    "bpd_chain",
    "bpd_estimate",
    "bpd_loop",
    "bpd_term",
    "mean_over_images",
    "ode_bpd",
    "ode_bpd_chain",
    "progressive_rate",
    "progressive_rmse",
    "strata",
]
