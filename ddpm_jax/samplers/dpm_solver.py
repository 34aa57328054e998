"""DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095) of order 1 to 3, multistep and singlestep.

It solves the probability-flow ODE in lambda = log(signal / noise), with the predicted x_0 as a polynomial of lambda.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.diffusion import PredictFn, Process
from ddpm_jax.samplers.levels import Levels, checked, levels_at
from ddpm_jax.samplers.sampler import Sampler, timestep_at, weights_at
from ddpm_jax.samplers.stages import Stages, staged

METHODS = ("multistep", "singlestep")
_FEW = 15  # steps, with which a high order at the end does harm


class _Carry(NamedTuple):
    x_t: jax.Array
    predicted: jax.Array  # [B, order - 1, H, W, C], the x_0 of the steps before, the latest first
    taken: jax.Array  # int32 [B], steps so far


def dpm_solver(
    process: Process,
    timesteps: np.ndarray,
    *,
    order: int = 2,
    method: str = "multistep",
    lower_order_final: bool | None = None,
) -> Sampler:
    """Makes the sampler; the network is called K times, once at each of the timesteps.

    The last call is followed by a step of first order to x_0, as the noise ends there at an infinite lambda.

    Args:
        process: of T timesteps, that does not end in pure noise.
        timesteps: [K], rising, in [0, T - 1].
        order: 1, which is DDIM; 2 or 3.
        method: `multistep`, which combines the predictions of earlier steps (Algorithm 2); `singlestep`, whose steps
            are of `order` calls each (DPM-Solver, arXiv:2206.00927, Algorithms 1 and 2), the last of fewer.
        lower_order_final: of multistep, whether the step before the last is of second order at most; None: for K < 15.

    Raises:
        ValueError: for an order or method that there is not, or timesteps that do not fit.
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order={order} must be 1, 2 or 3.")
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    timesteps = checked(process, timesteps)
    level = levels_at(process, timesteps)
    if not np.isfinite(level.log_snr).all():
        raise ValueError("DPM-Solver++ needs a schedule that does not end in pure noise, at its timesteps; jsd does.")
    if method == "singlestep":
        return _singlestep(timesteps, level, order)
    final = len(timesteps) < _FEW if lower_order_final is None else lower_order_final
    return _multistep(timesteps, level, order, [1, 2] if final else [1])


def _multistep(timesteps: np.ndarray, level: Levels, order: int, last_orders: list[int]) -> Sampler:
    orders = [min(order, most) for most in [*last_orders, *[order] * len(timesteps)][: len(timesteps)]]
    table = _multistep_weights(level, orders, order)

    def init(x_t: jax.Array) -> _Carry:
        none = jnp.zeros((len(x_t), order - 1, *x_t.shape[1:]), x_t.dtype)
        return _Carry(x_t, none, jnp.zeros(len(x_t), jnp.int32))

    def step(predict_fn: PredictFn, carry: _Carry, i: jax.Array | int, noise: jax.Array) -> tuple[_Carry, jax.Array]:
        x_0 = predict_fn(carry.x_t, timestep_at(timesteps, i, carry.x_t)).x_0
        predicted = jnp.concatenate([x_0[:, None], carry.predicted], axis=1)  # [B, order, H, W, C]
        row = i * order + jnp.minimum(carry.taken, order - 1)
        of_x_t, *of_x_0 = weights_at(table.reshape(-1, 1 + order), row, carry.x_t)
        x_t = of_x_t * carry.x_t + sum(
            of * each for of, each in zip(of_x_0, jnp.moveaxis(predicted, 1, 0), strict=True)
        )
        return _Carry(x_t, predicted[:, : order - 1], carry.taken + 1), x_0

    return Sampler(timesteps, init, step, lambda carry: carry.x_t)


def _multistep_weights(level: Levels, orders: list[int], order: int) -> np.ndarray:
    """Computes the coefficients of x_t and of the predicted x_0, the latest first; float64 [K, order, 1 + order].

    The second index is the number of predictions from earlier steps that there are: a chain may begin anywhere.
    """
    after, at = level.after_step(), level.log_snr
    table = np.zeros((len(orders), order, 1 + order))
    for i, wanted in enumerate(orders):
        for earlier in range(order):
            if i + earlier >= len(orders):
                continue  # no chain is so long
            h = after.log_snr[i] - at[i]
            of_x_0 = np.zeros(order)
            of_x_0[0] = -np.expm1(-h)
            match min(wanted, 1 + earlier):
                case 2:
                    slope = _slope(at[[i, i + 1]], h, order)
                    of_x_0 += 0.5 * of_x_0[0] * slope
                case 3:
                    near, far = _slope(at[[i, i + 1]], h, order), _slope(at[[i + 1, i + 2]], h, order, first=1)
                    r_0, r_1 = (at[i] - at[i + 1]) / h, (at[i + 1] - at[i + 2]) / h
                    curvature = (near - far) / (r_0 + r_1)
                    phi_2 = np.expm1(-h) / h + 1.0
                    of_x_0 += phi_2 * (near + r_0 * curvature) - (phi_2 / h - 0.5) * curvature
            table[i, earlier] = after.noise[i] / level.noise[i], *(after.signal[i] * of_x_0)
    return table


def _slope(log_snr: np.ndarray, h: float, order: int, *, first: int = 0) -> np.ndarray:
    """Returns the coefficients of the difference quotient of predictions `first` and `first` + 1, for a step of 1."""
    slope = np.zeros(order)
    slope[[first, first + 1]] = h / (log_snr[0] - log_snr[1]) * np.array([1.0, -1.0])
    return slope


def _singlestep(timesteps: np.ndarray, level: Levels, order: int) -> Sampler:
    """Splits the K calls into steps of `order`; the last has one call, as it leads to x_0."""
    whole, rest = divmod(len(timesteps) - 1, order)
    sizes = [order] * whole + ([rest] if rest else []) + [1]  # in the order in which they are taken
    first = len(timesteps) - np.cumsum(sizes)  # index of the last call of each step
    begins = [low + size - 1 for low, size in zip(first, sizes, strict=True)]
    shape = (len(sizes), order)
    called, weights, needed = np.zeros(shape, timesteps.dtype), np.zeros((*shape, 1 + order)), np.zeros(shape, bool)
    end = level.after_step()
    for step, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        called[step] = timesteps[begin]
        called[step, :size] = timesteps[begin - np.arange(size)]
        needed[step, :size] = True
        for stage in range(size):
            weights[step, stage] = _singlestep_weights(level, end, begin, size, stage, order)
    steps = np.array(begins)[::-1]
    stages = Stages(timesteps=called[::-1], weights=weights[::-1], needed=needed[::-1], of="x_0")
    return staged(timesteps[steps], stages)


def _singlestep_weights(level: Levels, end: Levels, begin: int, size: int, stage: int, order: int) -> np.ndarray:
    """Computes the coefficients of the x at which a step begins and of its predicted x_0, in order; [1 + order].

    Stage s of a step leads to the level of call s + 1, or to the end of the step.
    """
    to = begin - stage
    of_x_0 = np.zeros(order)
    h = end.log_snr[to] - level.log_snr[begin]
    of_x_0[0] = -np.expm1(-h)
    if stage:  # the prediction changes as it did up to the newest, of this stage
        passed = level.log_snr[to] - level.log_snr[begin]
        half = 0.5 * of_x_0[0] * h if size == 2 else np.expm1(-h) + h
        of_x_0[[0, stage]] += half / passed * np.array([-1.0, 1.0])
    return np.array([end.noise[to] / level.noise[begin], *(end.signal[to] * of_x_0)])
