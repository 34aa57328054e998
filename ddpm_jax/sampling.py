"""The reverse chain: Algorithm 2 of Ho et al. 2020, compiled as one `lax.scan`, whole or from any x_t on.

The sample is a function of its key alone: image i of a run has the key `fold_in(key(seed), i)`, from which x_T and the
noise of every step are drawn, so it does not depend on the batch it is drawn in.

Timesteps are 0-based as everywhere: step t takes the paper's x_{t+1} to its x_t. Where an x_t is given, `num_steps`
says how many steps of noise it holds, which is the paper's t: 0 for an image, T for pure noise.
"""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import DenoiseFn, Process, p_mean_variance, q_sample


def image_keys(seed: int, indices: jax.Array) -> jax.Array:
    """The keys [N] of images number `indices` [N] (int) of the run with this seed."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), indices)


def noise(keys: jax.Array, index: jax.Array | int, shape: tuple[int, int, int]) -> jax.Array:
    """Standard normal noise number `index` (of all or [B]) of each key, [B, H, W, C]: of step t for t, x_T for T."""
    indices = jnp.broadcast_to(index, keys.shape)
    return jax.vmap(lambda key, index: jax.random.normal(jax.random.fold_in(key, index), shape))(keys, indices)


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
    num_steps = process.num_timesteps
    return decode(process, denoise_fn, x_t=noise(keys, num_steps, shape), num_steps=num_steps, keys=keys, clip=clip)


def decode(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_t: jax.Array,
    num_steps: jax.Array | int,
    keys: jax.Array,
    clip: bool = True,
) -> jax.Array:
    """Draws x_0 from p(x_0 | x_t): the rest of the reverse chain. With several keys for one x_t, Figure 7.

    With the keys of the chain that x_t was taken from, it ends in that chain's own image.

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        x_t: [B, H, W, C].
        num_steps: scalar int in 0..T, how many steps of noise `x_t` holds; with 0 it is returned as it is. May be
            traced, so that one compiled function serves all; the gradient exists only where it is a Python int.
        keys: [B], of the noise of the steps.
        clip: clip the predicted x_0 to [-1, 1] at every step.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    x_0, _ = _chain(process, denoise_fn, x_t=x_t, num_steps=num_steps, keys=keys, clip=clip)
    return x_0


def progressive_loop(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    keys: jax.Array,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    clip: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """As `sample_loop`, which it agrees with, and the x_0 predicted on the way (Section 4.3, Figures 6, 10 and 14).

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        keys: [B], one an image.
        shape: (H, W, C) of one image.
        timesteps: K different ints in [0, T): the steps whose prediction is kept. No other is stored.
        clip: clip the predicted x_0 to [-1, 1] at every step.

    Returns:
        x_0 [B, H, W, C], and the predictions [B, K, H, W, C] in the order of `timesteps`.

    Raises:
        ValueError: if a timestep is out of range or given twice.
    """
    return _whole_chain(
        process, denoise_fn, keys=keys, shape=shape, clip=clip, timesteps=timesteps, keep=lambda x_t, x_0: x_0
    )


def latents_loop(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    keys: jax.Array,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    clip: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """As `progressive_loop`, but what it keeps is the x_t that each step begins with: the latents to share (Figure 7).

    Returns:
        x_0 [B, H, W, C], and x_t [B, K, H, W, C] in the order of `timesteps`. That of timestep t holds t + 1 steps of
        noise: it is the paper's x_{t+1}, which `decode(..., num_steps=t + 1)` continues.
    """
    return _whole_chain(
        process, denoise_fn, keys=keys, shape=shape, clip=clip, timesteps=timesteps, keep=lambda x_t, x_0: x_t
    )


def interpolate(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0_a: jax.Array,
    x_0_b: jax.Array,
    eps_a: jax.Array,
    eps_b: jax.Array,
    weight: jax.Array,
    num_steps: jax.Array | int,
    keys: jax.Array,
    clip: bool = True,
) -> jax.Array:
    """Images between two images (Section 4.4, Figures 8 and 9): encoded by q, mixed, decoded by p.

    What is mixed are the latents, x_t = (1 - weight) x_t^a + weight x_t^b, as the text of the paper says and the
    released code does; the formula printed in Section 4.4 has x_0 in their place. Each of the two has noise of its
    own; a row of Figure 8 is one pair with the same noises and the same key, in which only the weight varies. The
    mixed noise is then weaker than that of a true x_t, by half its variance at the middle.

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        x_0_a: [B, H, W, C] in [-1, 1].
        x_0_b: [B, H, W, C] in [-1, 1].
        eps_a: [B, H, W, C] standard normal, of the encoding of `x_0_a`.
        eps_b: [B, H, W, C] standard normal, of the encoding of `x_0_b`.
        weight: [B] in [0, 1], the paper's lambda: 0 decodes a alone, 1 decodes b alone.
        num_steps: scalar int in 0..T, of encoding and decoding; 0 mixes the images themselves. May be traced.
        keys: [B], of the noise of decoding.
        clip: clip the predicted x_0 to [-1, 1] at every step.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    chex.assert_equal_shape([x_0_a, x_0_b, eps_a, eps_b])
    chex.assert_shape([weight, keys], x_0_a.shape[:1])
    t = jnp.full(keys.shape, jnp.maximum(num_steps - 1, 0))  # [B]
    latent_a, latent_b = (
        jnp.where(num_steps > 0, q_sample(process, x_0=x_0, t=t, eps=eps), x_0)
        for x_0, eps in ((x_0_a, eps_a), (x_0_b, eps_b))
    )
    weight = weight[:, None, None, None]  # [B, 1, 1, 1]
    x_t = (1.0 - weight) * latent_a + weight * latent_b
    return decode(process, denoise_fn, x_t=x_t, num_steps=num_steps, keys=keys, clip=clip)


def _whole_chain(
    process: Process, denoise_fn: DenoiseFn, *, keys: jax.Array, shape: tuple[int, int, int], **settings
) -> tuple[jax.Array, jax.Array]:
    num_steps = process.num_timesteps
    x_0, kept = _chain(
        process, denoise_fn, x_t=noise(keys, num_steps, shape), num_steps=num_steps, keys=keys, **settings
    )
    return x_0, jnp.moveaxis(kept, 0, 1)  # [B, K, H, W, C]


def _chain(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_t: jax.Array,
    num_steps: jax.Array | int,
    keys: jax.Array,
    clip: bool,
    timesteps: Sequence[int] = (),
    keep: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Steps num_steps - 1 to 0 from x_t; returns x_0, and keep(x_t, predicted x_0) [K, B, H, W, C] of `timesteps`."""
    chex.assert_shape(keys, x_t.shape[:1])
    slots = jnp.asarray(_slots(timesteps, process.num_timesteps))  # [T]

    def step(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x_t, kept = carry
        t = num_steps - 1 - i
        batch_t, eps = jnp.full(keys.shape, t), noise(keys, t, x_t.shape[1:])
        x_prev, x_0 = p_sample(process, denoise_fn, x_t=x_t, t=batch_t, eps=eps, clip=clip)
        if timesteps:
            kept = kept.at[slots[t]].set(keep(x_t, x_0), mode="drop")
        return x_prev, kept

    kept = jnp.zeros((len(timesteps), *x_t.shape))
    return jax.lax.fori_loop(0, num_steps, step, (x_t, kept))  # a scan, where num_steps is a Python int


def _slots(timesteps: Sequence[int], num_timesteps: int) -> np.ndarray:
    """Where each of the T steps is kept, int32 [T]: its place in `timesteps`, or K, which is past the end."""
    if len(set(timesteps)) < len(timesteps) or not all(0 <= t < num_timesteps for t in timesteps):
        raise ValueError(f"timesteps={list(timesteps)} must be different integers in 0..{num_timesteps - 1}.")
    slots = np.full(num_timesteps, len(timesteps), np.int32)
    slots[list(timesteps)] = np.arange(len(timesteps))
    return slots
