"""Ancestral sampling: Algorithm 2 of Ho et al. 2020."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn, Process
from ddpm_jax.samplers.sampler import Sampler


def ancestral(process: Process) -> Sampler:
    """Makes the sampler that draws each x_{t-1} from p(x_{t-1} | x_t), at all T timesteps of the process.

    Its coefficients are those of p itself, so they come with the prediction.
    """
    return Sampler(
        timesteps=np.arange(process.num_timesteps, dtype=np.int32),
        init=lambda x_t: x_t,
        step=_step,
        read=lambda x_t: x_t,
    )


def _step(predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes x_t to x_{t-1} (lines 3 and 4)."""
    t = jnp.broadcast_to(i, x_t.shape[:1])  # [B]; step i is that of t = i
    predicted = predict_fn(x_t, t)
    noisy = (t > 0).astype(x_t.dtype)[:, None, None, None]  # no noise on the last step (line 3)
    return predicted.mean + noisy * jnp.exp(0.5 * predicted.log_variance) * noise, predicted.x_0
