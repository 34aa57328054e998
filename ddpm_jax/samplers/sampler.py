"""What a sampler is: a pair of pure functions and the timesteps at which they call the network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.diffusion import PredictFn


class Sampler(NamedTuple):
    """Takes x_T to x_0 in K steps, from step K - 1 down to step 0.

    A step depends on the carry, the prediction and the noise; everything else, such as coefficients computed beforehand
    in float64, its functions close over. The carry is a pytree that keeps its structure and shapes: x_t, and what else
    the next step needs.

    Attributes:
        timesteps: int32 [K], rising, in [0, T): step i begins with an x_t of timestep t = timesteps[i].
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
