"""The terms of the variational bound (Eq. 5), and the losses that train a network (Section 3.4 of the paper).

L_hybrid is that of Nichol and Dhariwal 2021 (arXiv:2102.09672, Eq. 16).
"""

import math

import jax
import jax.numpy as jnp

from ddpm_jax.arguments import check_shape
from ddpm_jax.diffusion.prediction import DenoiseFn, p_mean_variance
from ddpm_jax.diffusion.process import LEARNED, Process, at, check_choice, q_mean_variance, q_posterior, q_sample
from ddpm_jax.diffusion.weighting import loss_weights, parse
from ddpm_jax.gaussian import discretized_gaussian_log_likelihood, normal_kl

LOSS_TYPES = ("mse", "kl", "hybrid")
_BOUND_IN_HYBRID = 0.001  # lambda, the weight of the bound in L_hybrid


def check_loss(process: Process, loss_type: str, weighting: str = "") -> None:
    """Refuses a loss that does not exist, or that cannot train this process.

    Raises:
        ValueError: naming the loss and what would be right.
    """
    check_choice("loss_type", loss_type, LOSS_TYPES)
    learned = process.var_type in LEARNED
    if learned and loss_type == "mse":
        raise ValueError(
            f"loss_type='mse' does not train a variance, so var_type={process.var_type!r} would never be learned. Use "
            "loss_type='kl' or 'hybrid', or a fixed variance."
        )
    if not learned and loss_type == "hybrid":
        raise ValueError(
            f"loss_type='hybrid' trains a variance by the bound, and var_type={process.var_type!r} has none to learn. "
            "Use var_type='learned_range', or loss_type='mse'."
        )
    if weighting and parse(weighting) and loss_type == "kl":
        raise ValueError(f"The loss weighting {weighting!r} is of a squared error, and loss_type='kl' has none.")


def training_losses(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0: jax.Array,
    t: jax.Array,
    eps: jax.Array,
    loss_type: str = "mse",
    weighting: str = "",
) -> jax.Array:
    """Computes the loss of each image.

    Args:
        process: coefficients, and what the network predicts.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        x_0: [B, H, W, C] in [-1, 1].
        t: [B] int32 in [0, T).
        eps: [B, H, W, C] standard normal noise.
        loss_type: `mse`, the unweighted squared error of what the network predicts (L_simple, Eq. 14, for `eps`);
            `kl`, the variational bound (Eq. 5); `hybrid`, the squared error plus 0.001 T times the bound's term, whose
            gradient reaches the variance alone (L_hybrid).
        weighting: of the squared error at each t: '', none, as in the paper; or see `weighting.loss_weights`.

    Returns:
        [B] float32. `mse`: the mean over H, W and C; for eps about 1 for an untrained network. `kl`: the term t of the
        bound in bits/dim, not multiplied by T; its mean over uniform t times T, plus `prior_bpd`, is the whole bound.

    Raises:
        ValueError: as `check_loss` does.
    """
    check_loss(process, loss_type, weighting)
    x_t = q_sample(process, x_0=x_0, t=t, eps=eps)
    model_output = denoise_fn(x_t, process.network_t(t)).astype(jnp.float32)
    if loss_type == "kl":
        return vb_terms_bpd(process, model_output=model_output, x_0=x_0, x_t=x_t, t=t, clip=False)[0]
    prediction = model_output if loss_type == "mse" else jnp.split(model_output, 2, axis=-1)[0]
    error = _squared_error(process, prediction=prediction, x_0=x_0, x_t=x_t, t=t, eps=eps)
    if weighting:
        error = loss_weights(process, weighting)[t] * error
    if loss_type == "mse":
        return error
    variance = jnp.split(model_output, 2, axis=-1)[1]
    fixed_mean = jnp.concatenate([jax.lax.stop_gradient(prediction), variance], axis=-1)
    term, _ = vb_terms_bpd(process, model_output=fixed_mean, x_0=x_0, x_t=x_t, t=t, clip=False)
    return error + _BOUND_IN_HYBRID * process.num_timesteps * term


def _squared_error(
    process: Process, *, prediction: jax.Array, x_0: jax.Array, x_t: jax.Array, t: jax.Array, eps: jax.Array
) -> jax.Array:
    """Computes the mean squared error [B] of what the network predicts of x_t."""
    match process.mean_type:
        case "eps":
            target = eps
        case "xstart":
            target = x_0
        case "xprev":
            target, _, _ = q_posterior(process, x_0=x_0, x_t=x_t, t=t)
        case "v":
            target = at(process.sqrt_alphas_cumprod, t) * eps - at(process.sqrt_one_minus_alphas_cumprod, t) * x_0
    check_shape("the output of denoise_fn", prediction, target.shape)
    return _mean_over_pixels((prediction - target) ** 2)


def vb_terms_bpd(
    process: Process, *, model_output: jax.Array, x_0: jax.Array, x_t: jax.Array, t: jax.Array, clip: bool
) -> tuple[jax.Array, jax.Array]:
    """Computes the terms L_{t-1} of the variational bound (Eq. 5); where t = 0 that is L_0, the decoder's (Eq. 13).

    Args:
        process: coefficients, and what the network predicts.
        model_output: what `denoise_fn(x_t, t)` returned.
        x_0: [B, H, W, C] in [-1, 1].
        x_t: [B, H, W, C], drawn from q(x_t | x_0).
        t: [B] int32 in [0, T).
        clip: clip the predicted x_0, as the official evaluation does and the training loss does not.

    Returns:
        [B] in bits/dim, and the predicted x_0 [B, H, W, C].
    """
    mean, _, log_variance = q_posterior(process, x_0=x_0, x_t=x_t, t=t)
    predicted = p_mean_variance(process, model_output=model_output, x_t=x_t, t=t, clip=clip)
    divergence = normal_kl(
        mean1=mean, log_variance1=log_variance, mean2=predicted.mean, log_variance2=predicted.log_variance
    )
    decoder = -discretized_gaussian_log_likelihood(x_0, mean=predicted.mean, log_scale=0.5 * predicted.log_variance)
    nats = jnp.where(t == 0, _mean_over_pixels(decoder), _mean_over_pixels(divergence))
    return nats / math.log(2.0), predicted.x_0


def prior_bpd(process: Process, *, x_0: jax.Array) -> jax.Array:
    """Computes L_T = KL(q(x_T | x_0) || N(0, I)) of Eq. 5, [B] in bits/dim; nothing in it is learned."""
    last = jnp.full(x_0.shape[:1], process.num_timesteps - 1)
    mean, _, log_variance = q_mean_variance(process, x_0=x_0, t=last)
    zero = jnp.zeros_like(log_variance)
    divergence = normal_kl(mean1=mean, log_variance1=log_variance, mean2=zero, log_variance2=zero)
    return _mean_over_pixels(divergence) / math.log(2.0)


def _mean_over_pixels(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2, 3))  # [B]
