"""What a sampler is: a pair of pure functions and the timesteps at which they call the network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn
from ddpm_jax.diffusion.process import at


class Sampler(NamedTuple):
    """Takes x_T to x_0 in K steps, from step K - 1 down to step 0.

    A step depends on the carry, the prediction and the noise; everything else, such as coefficients computed beforehand
    in float64, its functions close over. The carry is a pytree that keeps its structure and shapes, of arrays
    [B, ...]: x_t, and what else the next step needs.

    Attributes:
        timesteps: [K], rising, in [0, T - 1]: step i begins with an x_t of timestep t = timesteps[i]. They are int32,
            or floating where they lie between whole timesteps; several steps may be at one. (What encodes runs the
            other way: its timesteps fall. Those of `repaint` fall and rise.)
        init: `x_t [B, H, W, C] -> carry`, before the first step.
        step: `(predict_fn, carry, i, noise) -> carry, predicted x_0 [B, H, W, C]`, with `i` int32, of all images or
            [B], and `noise` [B, H, W, C] standard normal.
        read: `carry -> x_t [B, H, W, C]`; after step 0 that is x_0.
    """

    timesteps: np.ndarray
    init: Callable[[jax.Array], Any]
    step: Callable[[PredictFn, Any, jax.Array | int, jax.Array], tuple[Any, jax.Array]]
    read: Callable[[Any], jax.Array]

    @property
    def num_steps(self) -> int:
        """Counts the steps: K."""
        return len(self.timesteps)


def unchanged(x_t: jax.Array) -> jax.Array:
    """Is `init` and `read` of a sampler that carries x_t alone."""
    return x_t


def timestep_at(timesteps: np.ndarray, i: jax.Array | int, like: jax.Array) -> jax.Array:
    """Looks up the timesteps of step i for the images of `like` [B, H, W, C]: [B], int32 or float32."""
    dtype = jnp.int32 if np.issubdtype(timesteps.dtype, np.integer) else jnp.float32
    return jnp.asarray(timesteps, dtype)[jnp.broadcast_to(i, like.shape[:1])]


def weights_at(table: np.ndarray, i: jax.Array | int, like: jax.Array) -> tuple[jax.Array, ...]:
    """Looks up the row of step i in a table [K, N] of coefficients, for the images of `like`: N times [B, 1, 1, 1]."""
    i = jnp.broadcast_to(i, like.shape[:1])
    return tuple(at(jnp.asarray(column, jnp.float32), i) for column in table.T)
