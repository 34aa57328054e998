"""What the network says of x_t: the reverse process p, the x_0 it implies, and the score (Section 3 of the paper)."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from ddpm_jax.arguments import check_alike, check_shape, check_timesteps
from ddpm_jax.diffusion.process import LEARNED, Process, at, q_posterior, signal_and_noise

DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]  # (x_t, process.network_t(t)) -> model output


@flax.struct.dataclass
class Prediction:
    """What the network says of x_t; each [B, H, W, C].

    Mean and variance are those of p(x_{t-1} | x_t); they are None between whole timesteps, where there is no x_{t-1}.
    """

    x_0: jax.Array  # the clean image that the network's output implies
    eps: jax.Array  # the noise in x_t, if that is the clean image
    mean: jax.Array | None = None
    variance: jax.Array | None = None
    log_variance: jax.Array | None = None
    range_share: jax.Array | None = None  # of the upper end in a log-variance of `learned_range`, and None in others


PredictFn = Callable[[jax.Array, jax.Array], Prediction]  # (x_t, t) -> prediction
Constrain = Callable[[jax.Array], jax.Array]  # the implied x_0 -> the x_0 that is used


def clip_x_0(x_0: jax.Array) -> jax.Array:
    """Clips an implied x_0 to [-1, 1], as the official samplers do."""
    return jnp.clip(x_0, -1.0, 1.0)


def dynamic_threshold(x_0: jax.Array, *, quantile: float = 0.995) -> jax.Array:
    """Scales an implied x_0 into [-1, 1] by a bound of its own (Saharia et al. 2022, arXiv:2205.11487, Section 2.3).

    Args:
        x_0: [B, H, W, C].
        quantile: of the absolute pixels of each image, in (0, 1]: this is its bound, where that is above 1. Pixels
            beyond are clipped to it, and all are divided by it. Where it is at most 1, the same as `clip_x_0`.
    """
    bound = jnp.quantile(jnp.abs(x_0), quantile, axis=(1, 2, 3), keepdims=True)  # [B, 1, 1, 1]
    bound = jnp.maximum(bound, 1.0)
    return jnp.clip(x_0, -bound, bound) / bound


def make_predict_fn(process: Process, denoise_fn: DenoiseFn, *, constrain: Constrain | None) -> PredictFn:
    """Makes `predict_fn(x_t, t) -> Prediction`, by which samplers see the network, whatever its parametrization.

    Args:
        process: coefficients, and what the network predicts.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        constrain: `x_0 -> x_0`, what is done to the implied x_0 before anything is computed from it: `clip_x_0`,
            `dynamic_threshold`, or None for nothing.

    Returns:
        The function; `t` is [B], int32 in [0, T), or floating in [0, T - 1] where the network takes timesteps between
        whole ones (not with `xprev`, which is of whole ones alone).
    """

    def predict_fn(x_t: jax.Array, t: jax.Array) -> Prediction:
        return _predict(process, model_output=denoise_fn(x_t, process.network_t(t)), x_t=x_t, t=t, constrain=constrain)

    return predict_fn


def p_mean_variance(
    process: Process, *, model_output: jax.Array, x_t: jax.Array, t: jax.Array, clip: bool = True
) -> Prediction:
    """Computes p(x_{t-1} | x_t), Eq. 1, from what the network said about x_t.

    Args:
        process: coefficients, and what the network predicts.
        model_output: what `denoise_fn(x_t, t)` returned: [B, H, W, C], or with learned variances [B, H, W, 2C], what
            tells the log-variances second.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).
        clip: clip the implied x_0 to [-1, 1] before the mean is computed from it, as the official samplers do; where
            the network predicts the mean itself (`xprev`), only the reported x_0 is clipped.

    Raises:
        ArgumentError: while tracing, if the shapes do not fit.
    """
    return _predict(process, model_output=model_output, x_t=x_t, t=t, constrain=clip_x_0 if clip else None)


def _predict(
    process: Process, *, model_output: jax.Array, x_t: jax.Array, t: jax.Array, constrain: Constrain | None
) -> Prediction:
    check_shape("x_t", x_t, "BHWC")
    check_shape("model_output", model_output, (*x_t.shape[:-1], process.outputs_per_channel * x_t.shape[-1]))
    check_timesteps(t, batch_size=len(x_t), num_timesteps=process.num_timesteps, whole=False)
    prediction = model_output[..., : x_t.shape[-1]]
    x_0 = predict_x_0(process, prediction=prediction, x_t=x_t, t=t)
    if constrain is not None:
        x_0 = constrain(x_0)
    if constrain is None and process.mean_type == "eps":
        eps = prediction
    else:
        signal, noise = signal_and_noise(process, t)
        eps = (x_t - signal * x_0) / noise
    if not jnp.issubdtype(t.dtype, jnp.integer):
        return Prediction(x_0=x_0, eps=eps)
    _, variance, log_variance = _split(process, model_output=model_output, x_t=x_t, t=t)
    share = _range_share(model_output) if process.var_type == "learned_range" else None
    mean = prediction if process.mean_type == "xprev" else q_posterior(process, x_0=x_0, x_t=x_t, t=t)[0]
    return Prediction(x_0, eps, mean, variance, log_variance, share)


def _split(
    process: Process, *, model_output: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Splits the output into the prediction, and p's variance and log-variance, learned or fixed; each [B, H, W, C]."""
    check_shape("x_t", x_t, "BHWC")
    check_shape("model_output", model_output, (*x_t.shape[:-1], process.outputs_per_channel * x_t.shape[-1]))
    check_timesteps(t, batch_size=len(x_t), num_timesteps=process.num_timesteps)
    if process.var_type in LEARNED:
        prediction, log_variance = jnp.split(model_output, 2, axis=-1)
        if process.var_type == "learned_range":
            share = _range_share(model_output)
            lower, upper = at(process.posterior_log_variance, t), at(process.model_log_variance, t)
            log_variance = share * upper + (1.0 - share) * lower
        return prediction, jnp.exp(log_variance), log_variance
    variance = jnp.broadcast_to(at(process.model_variance, t), x_t.shape)
    return model_output, variance, jnp.broadcast_to(at(process.model_log_variance, t), x_t.shape)


def _range_share(model_output: jax.Array) -> jax.Array:
    """Computes the share of the upper end in a learned range; what the network says is not confined to [-1, 1]."""
    return 0.5 * (jnp.split(model_output, 2, axis=-1)[1] + 1.0)


def predict_x_0(process: Process, *, prediction: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """Computes the x_0 that follows from what the network predicts of x_t (Sections 3.2 and 3.3).

    Args:
        process: coefficients, and what the network predicts.
        prediction: [B, H, W, C], the network's output without what tells the variances.
        x_t: [B, H, W, C].
        t: [B], int32 in [0, T) or floating in [0, T - 1].

    Returns:
        [B, H, W, C], unclipped.

    Raises:
        ValueError: for `xprev` between whole timesteps.
    """
    check_alike(x_t=x_t, prediction=prediction)
    whole = jnp.issubdtype(t.dtype, jnp.integer)
    match process.mean_type:
        case "eps" if not whole:
            signal, noise = signal_and_noise(process, t)
            return (x_t - noise * prediction) / signal
        case "eps":  # Eq. 4, solved for x_0
            scale, noise = at(process.sqrt_recip_alphas_cumprod, t), at(process.sqrt_recipm1_alphas_cumprod, t)
            return scale * x_t - noise * prediction
        case "xstart":
            return prediction
        case "xprev" if not whole:
            raise ValueError("mean_type='xprev' predicts at whole timesteps alone: choose a sampler of those.")
        case "xprev":  # the mean of Eq. 7, solved for x_0
            weight_x_0, weight_x_t = at(process.posterior_mean_coef1, t), at(process.posterior_mean_coef2, t)
            return (prediction - weight_x_t * x_t) / weight_x_0
        case "v":
            signal, noise = signal_and_noise(process, t)
            return signal * x_t - noise * prediction
    raise AssertionError(process.mean_type)


def score(process: Process, *, model_output: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """Computes the gradient of log q(x_t) with respect to x_t that the network implies: -eps / sqrt(1 - alpha-bar_t).

    Section 3.2: predicting eps is denoising score matching over the noise levels t, and a step of Algorithm 2 is one
    of Langevin dynamics. With s the score,
        x_{t-1} = (x_t + beta_t s(x_t, t)) / sqrt(1 - beta_t) + sigma_t z.

    Args:
        process: coefficients, and what the network predicts.
        model_output: what `denoise_fn(x_t, t)` returned.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).

    Returns:
        [B, H, W, C], of the unclipped x_0, in units of 1 / data.
    """
    prediction, _, _ = _split(process, model_output=model_output, x_t=x_t, t=t)
    x_0 = predict_x_0(process, prediction=prediction, x_t=x_t, t=t)
    return (at(process.sqrt_alphas_cumprod, t) * x_0 - x_t) / at(process.one_minus_alphas_cumprod, t)
