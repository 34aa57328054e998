"""The likelihood under the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, Section 4.3, Appendix D.2)."""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import samplers, sampling
from ddpm_jax.arguments import check_shape
from ddpm_jax.diffusion import DenoiseFn, PredictFn, Process, make_predict_fn
from ddpm_jax.samplers.levels import levels_at, timesteps_at


def ode_bpd(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0: jax.Array,
    keys: jax.Array,
    num_steps: int = 100,
    num_probes: int = 1,
    dequantize: bool = True,
) -> jax.Array:
    """Computes the negative log-likelihood of images under the probability-flow ODE: exact for it, but for two errors.

    The ODE is solved by Runge and Kutta's method of order 4 from t = 0, of which the image is taken to be, to T - 1,
    in x / signal and noise / signal as `samplers.probability_flow` does. The divergence is estimated without bias by
    Hutchinson's probes of +-1 (Eq. 40), an image's own, with the network differentiated in forward mode.

    Args:
        process: of T timesteps, that does not end in pure noise.
        denoise_fn: the network, closed over its parameters; it is asked between whole timesteps, too.
        x_0: [B, H, W, C], 8-bit images in [-1, 1].
        keys: [B], one an image.
        num_steps: of four calls each, at least 1.
        num_probes: P; more cost as much as as many calls.
        dequantize: add uniform noise as wide as one of 256 values, so that the mean bounds the bits/dim of the 8-bit
            image from above; else x_0 is taken as it is.

    Returns:
        [B, P] in bits/dim of 8-bit pixels, by each probe; the mean over P is the estimate.

    Raises:
        ValueError: if there are not so many steps.
    """
    check_shape("x_0", x_0, "BHWC")
    sampling.check_keys(keys, batch_size=len(x_0))
    chain = ode_bpd_chain(process, denoise_fn, num_steps=num_steps, num_probes=num_probes, dequantize=dequantize)
    return chain.read(chain.run(chain.init(x_0, keys), 0, num_steps, x_0, keys))


def ode_bpd_chain(
    process: Process, denoise_fn: DenoiseFn, *, num_steps: int = 100, num_probes: int = 1, dequantize: bool = True
) -> sampling.Chain:
    """Makes what `ode_bpd` computes as a whole, to be computed in pieces of the solver's steps.

    The arguments are those of `ode_bpd`. It takes the arrays x_0 [B, H, W, C] and keys [B], and [B, P] is read.

    Raises:
        ValueError: if there are not so many steps.
    """
    if not 1 <= num_steps < process.num_timesteps:
        raise ValueError(f"num_steps={num_steps} must be from 1 to {process.num_timesteps - 1}.")
    timesteps = samplers.spaced(process, num_steps + 1, "karras")
    level, tables = levels_at(process, timesteps), _runge_kutta_4(process, timesteps)
    predict_fn = make_predict_fn(process, denoise_fn, constrain=None)

    def init(x_0: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        if dequantize:
            normal = sampling.noise(keys, 0, x_0.shape[1:], stream=sampling.ODE)
            x_0 = x_0 + (jax.scipy.stats.norm.cdf(normal) - 0.5) / 127.5
        return jnp.asarray(x_0 / np.float32(level.signal[0]), jnp.float32), jnp.zeros((num_probes, len(x_0)))

    def run(carried: tuple, begin: jax.Array, end: jax.Array, x_0: jax.Array, keys: jax.Array) -> tuple:
        draw = lambda index: sampling.noise(keys, index, x_0.shape[1:], stream=sampling.ODE)  # noqa: E731
        normal = jax.lax.map(draw, 1 + jnp.arange(num_probes, dtype=jnp.int32))
        probes = jnp.where(normal < 0.0, jnp.float32(-1.0), jnp.float32(1.0))  # [P, B, H, W, C]

        def stage(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
            start, previous, total = carry
            ratio, t, share, weight = inputs
            rates = _eps_and_divergence(predict_fn, start + share * previous, ratio, t, probes)
            total = jax.tree.map(lambda sum_so_far, rate: sum_so_far + weight * rate, total, rates)
            return (start, rates[0], total), None

        def step(number: jax.Array, carried: tuple) -> tuple:
            zero = jax.tree.map(jnp.zeros_like, carried)
            (_, _, change), _ = jax.lax.scan(
                stage, (carried[0], zero[0], zero), tuple(table[number] for table in tables)
            )
            return jax.tree.map(jnp.add, carried, change)

        return jax.lax.fori_loop(begin, end, step, carried)

    def read(carried: tuple) -> jax.Array:
        x, divergence = carried
        n, x_t = x[0].size, level.signal[-1].astype(np.float32) * x
        log_prior = -0.5 * jnp.sum(x_t**2, axis=(1, 2, 3)) - 0.5 * n * np.log(2.0 * np.pi)
        log_p = log_prior[None] + divergence + n * np.log(level.signal[-1] / level.signal[0])
        return (np.log2(127.5) - log_p / (n * np.log(2.0))).T

    return sampling.Chain(num_steps, init, run, read)


def _runge_kutta_4(process: Process, timesteps: np.ndarray) -> tuple[jax.Array, ...]:
    """Returns, by step and stage [K, 4]: noise / signal, t, how far the stage goes, and its weight in the step."""
    ratio = levels_at(process, timesteps).ratio
    begin, end = ratio[:-1], ratio[1:]
    middle = (begin + end) / 2.0
    middle_t = timesteps_at(process, middle)
    h = end - begin
    tables = (
        np.stack([begin, middle, middle, end], axis=1),
        np.stack([timesteps[:-1], middle_t, middle_t, timesteps[1:]], axis=1),
        h[:, None] * [0.0, 0.5, 0.5, 1.0],
        h[:, None] * [1 / 6, 1 / 3, 1 / 3, 1 / 6],
    )
    return tuple(jnp.asarray(table, jnp.float32) for table in tables)


def _eps_and_divergence(
    predict_fn: PredictFn, x: jax.Array, ratio: jax.Array, t: jax.Array, probes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns d(x / signal) / d ratio = eps [B, H, W, C], and its divergence by each of the probes, [P, B]."""
    signal, t = jax.lax.rsqrt(1.0 + ratio**2), jnp.full(len(x), t)
    eps, derivative = jax.linearize(lambda x: predict_fn(signal * x, t).eps, x)
    return eps, jnp.sum(probes * jax.vmap(derivative)(probes), axis=(2, 3, 4))
