"""Ancestral sampling: Algorithm 2 of Ho et al. 2020, at all timesteps or at some of them."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn, Process
from ddpm_jax.samplers.levels import checked, levels_at
from ddpm_jax.samplers.sampler import Sampler, timestep_at, unchanged, weights_at


def ancestral(process: Process, timesteps: np.ndarray | None = None, *, variances: np.ndarray | None = None) -> Sampler:
    """Makes the sampler that draws each x_{t-1} from p(x_{t-1} | x_t).

    At all T timesteps its coefficients are those of p itself, so they come with the prediction. At some of them they
    are those of the process that has these alone (Nichol and Dhariwal 2021, Section 4), whose betas are
    1 - alpha-bar_t / alpha-bar_s from a timestep t to the next, s. A variance of `learned_range` lies between the ends
    that this process has, where the network says.

    Args:
        process: of T timesteps, with a variance of the model.
        timesteps: [K], rising, in [0, T - 1]; None: all.
        variances: [K], of step i from timesteps[i] down, such as `analytic.optimal_variances`, in place of the model's.
            In the step to x_0 there is no noise.

    Raises:
        ValueError: if timesteps or variances do not fit, or the timesteps are some of them, without variances, where
            `learned` ones are of single steps.
    """
    if variances is None and (timesteps is None or np.array_equal(timesteps, np.arange(process.num_timesteps))):
        return Sampler(np.arange(process.num_timesteps, dtype=np.int32), unchanged, _step, unchanged)
    if variances is None and process.var_type == "learned":
        raise ValueError(
            f"var_type={process.var_type!r} is of single steps: ancestral sampling takes all of them, that is "
            f"{process.num_timesteps}. Other samplers do not use it."
        )
    timesteps = checked(process, timesteps)
    table = posterior_weights(process, timesteps, large=process.var_type == "fixedlarge")
    in_range = variances is None and process.var_type == "learned_range"
    if in_range:  # from its lower end to its upper one
        upper = posterior_weights(process, timesteps, large=True)[:, 2]
        range_ratio = np.divide(upper, table[:, 2], out=np.ones_like(upper), where=upper > 0.0)
    if variances is not None:
        if np.shape(variances) != timesteps.shape or not np.all(np.asarray(variances) >= 0.0):
            raise ValueError(f"The variances must be {len(timesteps)}, one a timestep, each at least 0.")
        table[:, 2] = np.where(table[:, 2] > 0.0, np.sqrt(variances), 0.0)

    def step(
        predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        predicted = predict_fn(x_t, timestep_at(timesteps, i, x_t))
        of_x_0, of_x_t, deviation = weights_at(table, i, x_t)
        if in_range:
            (ratio,) = weights_at(range_ratio[:, None], i, x_t)
            deviation *= ratio**predicted.range_share
        return of_x_0 * predicted.x_0 + of_x_t * x_t + deviation * noise, predicted.x_0

    return Sampler(timesteps, unchanged, step, unchanged)


def posterior_weights(process: Process, timesteps: np.ndarray, *, large: bool) -> np.ndarray:
    """Computes Eq. 7 for the process that has these timesteps alone, float64 [K, 3].

    Returns:
        The coefficients of x_0 and x_t in the mean, and the standard deviation: that of the posterior (beta-tilde), or
        with `large` that of the forward step (beta). In the last step, to x_0, it is 0.
    """
    level = levels_at(process, timesteps)
    after = level.after_step()
    beta = 1.0 - (level.signal / after.signal) ** 2
    of_x_0 = beta * after.signal / level.noise**2
    of_x_t = (level.signal / after.signal) * (after.noise / level.noise) ** 2
    deviation = np.sqrt(beta) * (1.0 if large else after.noise / level.noise)
    return np.stack([of_x_0, of_x_t, np.where(after.noise > 0.0, deviation, 0.0)], axis=1)


def _step(predict_fn: PredictFn, x_t: jax.Array, i: jax.Array | int, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Takes x_t to x_{t-1} (lines 3 and 4)."""
    t = jnp.broadcast_to(i, x_t.shape[:1])  # [B]; step i is that of t = i
    predicted = predict_fn(x_t, t)
    noisy = (t > 0).astype(x_t.dtype)[:, None, None, None]  # no noise on the last step (line 3)
    return predicted.mean + noisy * jnp.exp(0.5 * predicted.log_variance) * noise, predicted.x_0
