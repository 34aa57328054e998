"""The reverse chain: Algorithm 2 of Ho et al. 2020, compiled as one `lax.scan`.

The sample is a function of its key alone: image i of a run has the key `fold_in(key(seed), i)`, from which x_T and the
noise of every step are drawn, so it does not depend on the batch it is drawn in.
"""

import chex
import jax
import jax.numpy as jnp

from ddpm_jax.diffusion import DenoiseFn, Process, p_mean_variance


def image_keys(seed: int, indices: jax.Array) -> jax.Array:
    """The keys [N] of images number `indices` [N] (int) of the run with this seed."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), indices)


def p_sample(
    process: Process, denoise_fn: DenoiseFn, *, x_t: jax.Array, t: jax.Array, eps: jax.Array, clip: bool = True
) -> tuple[jax.Array, jax.Array]:
    """One step of Algorithm 2 (lines 3 and 4), with the noise given by the caller.

    Args:
        process: coefficients and choices.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).
        eps: [B, H, W, C] standard normal noise; ignored where t = 0.
        clip: clip the predicted x_0 to [-1, 1], as the official sampler does.

    Returns:
        x_{t-1} [B, H, W, C] and the predicted x_0 [B, H, W, C].
    """
    chex.assert_equal_shape([x_t, eps])
    predicted = p_mean_variance(process, model_output=denoise_fn(x_t, t), x_t=x_t, t=t, clip=clip)
    noisy = (t > 0).astype(x_t.dtype)[:, None, None, None]  # no noise on the last step (line 3)
    return predicted.mean + noisy * jnp.exp(0.5 * predicted.log_variance) * eps, predicted.x_0


def sample_loop(
    process: Process, denoise_fn: DenoiseFn, *, keys: jax.Array, shape: tuple[int, int, int], clip: bool = True
) -> jax.Array:
    """Draws images by the whole reverse chain, x_T to x_0 (Algorithm 2): one scan over T steps.

    Pure: may be jitted, vmapped, or called inside a larger jitted function.

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        keys: [B], one an image, as `image_keys` makes them.
        shape: (H, W, C) of one image.
        clip: clip the predicted x_0 to [-1, 1] at every step.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    num_timesteps = process.num_timesteps

    def noise(index: jax.Array) -> jax.Array:  # [B, H, W, C]
        return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), shape))(keys)

    def step(x_t: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        batch_t = jnp.full(keys.shape, t)  # [B]
        x_t, _ = p_sample(process, denoise_fn, x_t=x_t, t=batch_t, eps=noise(t), clip=clip)
        return x_t, None

    x_0, _ = jax.lax.scan(step, noise(num_timesteps), jnp.arange(num_timesteps - 1, -1, -1))
    return x_0
