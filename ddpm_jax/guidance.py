"""Guidance: a network and what it is to be told go in, a guided `denoise_fn` comes out. Samplers know nothing of it.

A network that takes a condition is `model_fn(x_t, t, cond) -> model_output`, cond [B, D] or None. Scales are those of
Ho and Salimans 2022 (arXiv:2207.12598, Eq. 6): 0 is no guidance. What others call the guidance scale is one more.

Guiding what the network predicts, eps, x_0, v or mu-tilde, comes to the same: each is an affine function of the other
with the same x_t, and the weights of the two predictions sum to 1. Learned variances are left as they are.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from ddpm_jax.diffusion import DenoiseFn, Process, predict_x_0
from ddpm_jax.diffusion.process import at

ModelFn = Callable[[jax.Array, jax.Array, jax.Array | None], jax.Array]  # (x_t, t, cond) -> model output
Scale = float | Callable[[jax.Array], jax.Array]  # one for all, or t [B] -> [B]


def within(scale: float, *, first: int, last: int) -> Scale:
    """Makes a scale that is 0 but for first <= t <= last (Kynkäänniemi et al. 2024, arXiv:2404.07724)."""
    return lambda t: jnp.where((first <= t) & (t <= last), jnp.float32(scale), 0.0)


def classifier_free(model_fn: ModelFn, cond: jax.Array, *, scale: Scale, null: jax.Array | float = 0.0) -> DenoiseFn:
    """Guides a network away from what it predicts where the condition is unknown (Ho and Salimans 2022).

    Both predictions are those of one call, with twice the images.

    Args:
        model_fn: the network, closed over its parameters; it must have learned the null condition.
        cond: [B, D], of each image.
        scale: w in (1 + w) model(x_t, t, cond) - w model(x_t, t, null).
        null: [B, D], or what broadcasts to it: the condition of what is unknown; of classes, zeros.
    """
    chex.assert_rank(cond, 2)
    both = jnp.concatenate([cond, jnp.broadcast_to(jnp.asarray(null, cond.dtype), cond.shape)])  # [2B, D]

    def denoise_fn(x_t: jax.Array, t: jax.Array) -> jax.Array:
        strong, weak = jnp.split(model_fn(jnp.concatenate([x_t, x_t]), jnp.concatenate([t, t]), both), 2)
        return _extrapolate(strong, weak, scale=scale, x_t=x_t, t=t)

    return denoise_fn


def extrapolate(strong: DenoiseFn, weak: DenoiseFn, *, scale: Scale) -> DenoiseFn:
    """Guides a network away from a weaker one: (1 + scale) strong - scale weak.

    The weaker one may be of an earlier step, a shorter average or fewer parameters (Karras et al. 2024,
    arXiv:2406.02507: autoguidance); with it, images get better at less cost in variety than without the condition.
    """

    def denoise_fn(x_t: jax.Array, t: jax.Array) -> jax.Array:
        return _extrapolate(strong(x_t, t), weak(x_t, t), scale=scale, x_t=x_t, t=t)

    return denoise_fn


def gradient(
    process: Process, denoise_fn: DenoiseFn, log_likelihood: Callable[[jax.Array], jax.Array], *, scale: Scale = 1.0
) -> DenoiseFn:
    """Guides a network by the gradient of log p(y | x_0) at the x_0 that it predicts of x_t.

    To the score of x_t is added `scale` times the gradient with respect to x_t, through the network. With a classifier
    that is the guidance of Dhariwal and Nichol (2021, Section 4), with a measurement y = A(x_0) + noise that of Chung
    et al. (2023, arXiv:2209.14687).

    Args:
        process: of the timesteps that `denoise_fn` is given.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        log_likelihood: `x_0 [B, H, W, C] -> [B]`, log p(y | x_0) up to a constant; x_0 is not clipped.
        scale: of the gradient; 0 is no guidance.
    """

    def guided_fn(x_t: jax.Array, t: jax.Array) -> jax.Array:
        channels = x_t.shape[-1]

        def of_x_t(x_t: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = denoise_fn(x_t, t)
            return log_likelihood(predict_x_0(process, prediction=output[..., :channels], x_t=x_t, t=t)).sum(), output

        slope, output = jax.grad(of_x_t, has_aux=True)(x_t)
        # The score s moves x_0 = (x_t + (1 - alpha-bar) s) / sqrt(alpha-bar), and x_0 is linear in the prediction.
        ones = jnp.ones_like(x_t)
        x_0_of_score = at(process.one_minus_alphas_cumprod, t) / at(process.sqrt_alphas_cumprod, t)
        x_0_of_prediction = predict_x_0(process, prediction=ones, x_t=jnp.zeros_like(x_t), t=t)
        moved = _per_image(scale, t) * x_0_of_score * slope / x_0_of_prediction
        return output.at[..., :channels].add(moved)

    return guided_fn


def _extrapolate(strong: jax.Array, weak: jax.Array, *, scale: Scale, x_t: jax.Array, t: jax.Array) -> jax.Array:
    chex.assert_equal_shape([strong, weak])
    channels = x_t.shape[-1]
    difference = strong[..., :channels] - weak[..., :channels]
    return strong.at[..., :channels].add(_per_image(scale, t) * difference)


def _per_image(scale: Scale, t: jax.Array) -> jax.Array:
    """Returns the scale of each image, [B, 1, 1, 1] float32."""
    values = jnp.asarray(scale(t) if callable(scale) else scale, jnp.float32)
    return jnp.broadcast_to(values, t.shape)[:, None, None, None]
