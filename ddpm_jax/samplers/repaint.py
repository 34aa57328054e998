"""RePaint (Lugmayr et al. 2022, arXiv:2201.09865): draws the unknown pixels of images whose others are known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn, Process
from ddpm_jax.samplers.levels import levels_at
from ddpm_jax.samplers.sampler import Sampler, unchanged, weights_at


def repaint(
    process: Process,
    sampler: Sampler,
    *,
    known: jax.Array,
    mask: jax.Array,
    jump_length: int = 10,
    num_resamples: int = 10,
) -> Sampler:
    """Makes the sampler of Algorithm 1: after each step of another sampler, known pixels are drawn from q instead.

    So that the unknown ones come to fit them, x_t goes back by `jump_length` noise levels and comes down again,
    `num_resamples` - 1 times from every `jump_length`-th level on. Such a jump is one draw from q(x_{t+j} | x_t).

    A pixel's noise serves the sampler where it is unknown, and q where it is known, so no further numbers are drawn. A
    sampler that adds noise before it predicts (`heun` with churn, a Langevin corrector) uses that of known pixels too.

    Args:
        process: of T timesteps, with which `sampler` was made.
        sampler: one that carries x_t alone. All do but multistep `dpm_solver`, whose history would no longer fit.
        known: [B, H, W, C] in [-1, 1], what the images are where `mask` is true; of any value elsewhere.
        mask: bool, [B or 1, H, W, C or 1], true where a pixel is known.
        jump_length: the paper's j, at least 1; 10 there for K = 250 steps, so few for few. The last j steps are too
            short a way for the unknown pixels to follow; of more than K, there are no jumps.
        num_resamples: the paper's r (U in Algorithm 1), at least 1: how often each stretch is gone down.

    Returns:
        A sampler whose steps are those of `sampler` and the jumps, in their order; jumps do not call the network. The
        known pixels of its x_0 are those of `known`.

    Raises:
        ValueError: for a sampler that cannot be wrapped, j or r < 1, or a mask that is not of booleans.
    """
    if jump_length < 1 or num_resamples < 1:
        raise ValueError(f"jump_length={jump_length} and num_resamples={num_resamples} must be at least 1.")
    if sampler.init is not unchanged or np.any(np.diff(sampler.timesteps) < 0):
        raise ValueError("RePaint changes x_t: it needs a sampler that carries x_t alone, from x_T to x_0.")
    if (dtype := jnp.asarray(mask).dtype) != jnp.bool:
        raise ValueError(f"The mask must be of booleans, true where a pixel is known, not of {dtype}.")
    moves = np.array(schedule(sampler.num_steps, jump_length, num_resamples))[::-1]  # [M, 2], step 0 the last
    begin, end = moves.T
    jumps, table = end > begin, _weights(process, sampler.timesteps, moves)

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        chex.assert_equal_shape([known, x_t])
        of_first, of_noise = weights_at(table, i, x_t)

        def lowered() -> tuple[jax.Array, jax.Array]:
            x, x_0 = sampler.step(predict_fn, x_t, jnp.asarray(np.where(jumps, 0, end))[i], noise)
            return jnp.where(mask, of_first * known + of_noise * noise, x), x_0

        if not jumps.any():
            return lowered()
        jump = jnp.broadcast_to(jnp.asarray(jumps)[i], x_t.shape[:1])
        x, x_0 = jax.lax.cond(jump.all(), lambda: (x_t, x_t), lowered)  # a jump predicts nothing
        return jnp.where(jump[:, None, None, None], of_first * x_t + of_noise * noise, x), x_0

    return Sampler(sampler.timesteps[begin - 1], unchanged, step, unchanged)


def schedule(num_steps: int, jump_length: int, num_resamples: int) -> list[tuple[int, int]]:
    """Lists the moves (from, to) between levels, in order; a level is the number of steps that are left from it on.

    Level 0 is x_0, and no jump leads back from it (Algorithm 1, line 9): they begin at the levels 1, 1 + j, 1 + 2j, ...
    """
    left = dict.fromkeys(range(1, num_steps - jump_length + 1, jump_length), num_resamples - 1)
    moves, level = [], num_steps
    while level > 0:
        moves.append((level, level - 1))
        level -= 1
        if left.get(level, 0):
            left[level] -= 1
            moves.append((level, level + jump_length))
            level += jump_length
    return moves


def _weights(process: Process, timesteps: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Computes the two factors of each move: of the known x_0 and the noise, or in a jump of x_t and the noise.

    They are those of q(x_t | x_0) at the level where the step ends (line 5), or of q from level to level (line 10).
    """
    level = levels_at(process, timesteps)
    signal, noise = np.append(1.0, level.signal), np.append(0.0, level.noise)
    begin, end = moves.T
    jumps = end > begin
    low = np.where(signal[begin] > 0.0, signal[begin], 1.0)  # a level of pure noise stays one
    ratio = np.where(signal[begin] > 0.0, signal[end] / low, 1.0)
    added = np.sqrt(np.maximum(noise[end] ** 2 - (ratio * noise[begin]) ** 2, 0.0))
    return np.where(jumps[:, None], np.stack([ratio, added], axis=1), np.stack([signal[end], noise[end]], axis=1))
