"""Gaussian diffusion (Ho et al. 2020, Sections 2 and 3): pure functions of arrays and a `Process`.

process.py      the coefficients, and the forward process q with its posteriors
prediction.py   what the network says of x_t: the reverse process p, the x_0 it implies, the score
losses.py       the terms of the variational bound, and the losses of training
weighting.py    weights of the squared error by the signal-to-noise ratio

Images are [B, H, W, C] in [-1, 1]; `t` is 0-based, so t = 0 is the paper's t = 1.
"""

from ddpm_jax.diffusion.losses import LOSS_TYPES, check_loss, prior_bpd, training_losses, vb_terms_bpd
from ddpm_jax.diffusion.prediction import (
    Constrain,
    DenoiseFn,
    PredictFn,
    Prediction,
    clip_x_0,
    dynamic_threshold,
    make_predict_fn,
    p_mean_variance,
    predict_x_0,
    score,
)
from ddpm_jax.diffusion.process import (
    MEAN_TYPES,
    VAR_TYPES,
    Process,
    log_alphas_cumprod,
    make_process,
    q_mean_variance,
    q_posterior,
    q_sample,
    signal_and_noise,
)
from ddpm_jax.diffusion.weighting import loss_weights

__all__ = [
    "LOSS_TYPES",
    "MEAN_TYPES",
    "VAR_TYPES",
    "Constrain",
    "DenoiseFn",
    "PredictFn",
    "Prediction",
    "Process",
    "check_loss",
    "clip_x_0",
    "dynamic_threshold",
    "log_alphas_cumprod",
    "loss_weights",
    "make_predict_fn",
    "make_process",
    "p_mean_variance",
    "predict_x_0",
    "prior_bpd",
    "q_mean_variance",
    "q_posterior",
    "q_sample",
    "score",
    "signal_and_noise",
    "training_losses",
    "vb_terms_bpd",
]
