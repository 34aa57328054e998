"""Steps of several stages that call the network: a scan over them, so that it stands in the program once."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn
from ddpm_jax.samplers.sampler import Sampler, timestep_at, unchanged, weights_at


class Stages(NamedTuple):
    """The coefficients of K steps of at most S stages, float64, computed beforehand.

    A step begins with x = start[0] x_t + start[1] noise. Stage s predicts from what stage s - 1 made, the first from
    that x; it makes weights[0] x + weights[1] of the first prediction + weights[2] of the second, and so on. What the
    last needed stage makes is the next x_t.
    """

    timesteps: np.ndarray  # [K, S], of each prediction; int32 or floating
    weights: np.ndarray  # [K, S, 1 + S]
    needed: np.ndarray  # [K, S] bool; the first of the stages, where a step has fewer
    start: np.ndarray | None = None  # [K, 2]; None: a step begins with x_t
    of: Literal["x_0", "eps"] = "eps"  # what of a prediction is meant


def staged(timesteps: np.ndarray, stages: Stages) -> Sampler:
    """Makes the sampler that takes such steps, from the timesteps [K]. A stage that is not needed costs nothing."""
    count = stages.needed.shape[1]

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        if stages.start is not None:
            of_x_t, of_noise = weights_at(stages.start, i, x_t)
            x_t = of_x_t * x_t + of_noise * noise
        start = x_t
        calls = jnp.stack([timestep_at(stages.timesteps[:, s], i, x_t) for s in range(count)])  # [S, B]
        needed = jnp.stack([jnp.broadcast_to(jnp.asarray(stages.needed[:, s])[i], x_t.shape[:1]) for s in range(count)])
        weights = jnp.stack([jnp.stack(weights_at(stages.weights[:, s], i, x_t)) for s in range(count)])

        def stage(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            x, outputs, x_0 = carry
            s, t, is_needed, (of_start, *of_outputs) = inputs

            def predict() -> tuple[jax.Array, jax.Array]:
                predicted = predict_fn(x, t)
                return getattr(predicted, stages.of), predicted.x_0

            output, implied = jax.lax.cond(is_needed.any(), predict, lambda: (jnp.zeros_like(x), x_0))
            outputs = outputs.at[s].set(output)
            made = of_start * start + sum(of * each for of, each in zip(of_outputs, outputs, strict=True))
            x = jnp.where(is_needed[:, None, None, None], made, x)
            return (x, outputs, jnp.where(s == 0, implied, x_0)), None

        carry = x_t, jnp.zeros((count, *x_t.shape), x_t.dtype), jnp.zeros_like(x_t)
        (x, _, x_0), _ = jax.lax.scan(stage, carry, (jnp.arange(count), calls, needed, weights))
        return x, x_0

    return Sampler(timesteps, unchanged, step, unchanged)
