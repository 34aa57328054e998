"""Random numbers: the keys of images, and the noise that is drawn with them.

An image is a function of its key alone: image i of a run has the key `fold_in(key(seed), i)`, from which x_T and the
noise of every step are drawn, so it does not depend on the batch it is drawn in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.arguments import ArgumentError, check_shape
from ddpm_jax.ops import random

PRNG_IMPLS = ("threefry2x32", "rbg")  # JAX's names; rbg's numbers differ between kinds of devices and versions of JAX
CHAIN = 0  # the stream of x_T and of the steps' noise; another use takes the next number here
ODE = 1  # of `likelihood.ode_bpd`: what is added to 8-bit pixels, and its probes
_STREAMS_FROM = 2**31  # above every index

# What draws is decorated with it, and says its dtypes: JAX's environment variables would change the numbers otherwise.
pinned = jax.threefry_partitionable(True)


def run_key(seed: int, *, prng_impl: str = PRNG_IMPLS[0]) -> jax.Array:
    """Makes the key of a run, of this generator whatever JAX's default is.

    Raises:
        ValueError: for an int outside 0..2**32 - 1, which has the key of another; for an unknown generator.
    """
    if isinstance(seed, int | np.integer) and not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} must be from 0 to {2**32 - 1}.")
    if prng_impl not in PRNG_IMPLS:
        raise ValueError(f"prng_impl={prng_impl!r} must be one of {', '.join(PRNG_IMPLS)}.")
    return jax.random.key(seed, impl=prng_impl)


def image_keys(seed: int, indices: jax.Array, *, prng_impl: str = PRNG_IMPLS[0]) -> jax.Array:
    """Makes the keys [N] of images number `indices` [N] (int) of the run with this seed; raises as `run_key` does."""
    check_shape("indices", indices, "N")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(run_key(seed, prng_impl=prng_impl), indices)


def check_keys(keys: Any, *, batch_size: int | str = "B") -> None:
    """Refuses what is no array [B], one key an image.

    Raises:
        ArgumentError: likewise.
    """
    check_shape("keys", keys, (batch_size,), what="one an image, as image_keys(seed, indices) makes them")


def over_keys(draw: Callable) -> Callable:
    """Maps `draw(key, ...)` over keys [B] and arrays [B, ...], so that what a key draws depends on no other.

    `jax.vmap` would do for threefry; the numbers that other generators draw depend on the batch, so their keys are
    taken one after another.
    """

    def draw_all(keys: jax.Array, *arrays: jax.Array) -> Any:
        if str(jax.random.key_impl(keys)) == PRNG_IMPLS[0]:
            return jax.vmap(draw)(keys, *arrays)
        return jax.lax.map(lambda each: draw(*each), (keys, *arrays))

    return draw_all


@pinned
def noise(keys: jax.Array, index: jax.Array | int, shape: tuple[int, int, int], *, stream: int = CHAIN) -> jax.Array:
    """Draws standard normal noise, number `index` of a stream of each key.

    The chain's stream draws with `fold_in(key, index)`: x_T at index T, the noise of step t at index t. Stream s > 0
    draws in the same way with the key `fold_in(key, 2**31 + s)` in place of `key`, which no index leads to.

    Three uses are older than streams and share their numbers with the chain of the same key. They stay as they are, so
    that a seed still gives what was recorded of it: the bound's noise at t (`likelihood`) is that of step t, its choice
    of timesteps (`likelihood.bpd_estimate`) is drawn with the key of x_T, and images to be interpolated (Figure 8) are
    encoded with an x_T.

    Args:
        keys: [B].
        index: int in [0, 2**31), of all images or [B].
        shape: (H, W, C) of one image.
        stream: 0, the chain's, or another number from 1 on, one a use.

    Returns:
        [B, H, W, C] float32.
    """
    check_keys(keys)
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ArgumentError(f"keys must be as image_keys(seed, indices) makes them; got an array of {keys.dtype}.")
    if len(shape) != 3:
        raise ArgumentError(f"shape must be (height, width, channels) of one image; got {shape}.")
    indices = jnp.broadcast_to(index, keys.shape)
    if stream != CHAIN:
        keys = jax.vmap(lambda key: jax.random.fold_in(key, _STREAMS_FROM + stream))(keys)
    draw = lambda key, index: random.normal(jax.random.fold_in(key, index), shape)  # noqa: E731
    return over_keys(draw)(keys, indices)
