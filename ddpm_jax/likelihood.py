"""Bits/dim: the variational bound, term by term, and progressive coding (Ho et al. 2020, Eq. 5, Section 4.3).

And the likelihood under the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, Section 4.3 and Appendix D.2).

An image's terms are a function of the image and its key alone, so they do not depend on the batch it is in. Images
are [B, H, W, C] in [-1, 1]. `t` is 0-based: the term of t = 0 is the decoder's, L_0, and the term of t > 0 is L_t.
"""

from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import samplers, sampling
from ddpm_jax.arguments import check_shape
from ddpm_jax.diffusion import DenoiseFn, Process, make_predict_fn, prior_bpd, q_sample, vb_terms_bpd
from ddpm_jax.samplers.levels import levels_at, timesteps_at


@flax.struct.dataclass
class Bound:
    """The bound on each image's negative log-likelihood, in bits/dim, and what it is made of."""

    total: jax.Array  # [B], prior + the sum of the terms
    terms: jax.Array  # [B, T], L_0 .. L_{T-1} of Eq. 5
    prior: jax.Array  # [B], L_T
    mse: jax.Array  # [B, T], of the x_0 predicted from x_t: mean over H, W, C, in units of [-1, 1]


def bpd_term(
    process: Process, denoise_fn: DenoiseFn, *, x_0: jax.Array, t: jax.Array, eps: jax.Array, clip: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Computes the term of the bound at `t` and the error of the x_0 predicted there, with noise given by the caller.

    Args:
        process: coefficients and choices.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        x_0: [B, H, W, C] in [-1, 1].
        t: [B] int32 in [0, T).
        eps: [B, H, W, C] standard normal noise, with which x_t is drawn from q(x_t | x_0).
        clip: clip the predicted x_0 to [-1, 1], as the official evaluation does.

    Returns:
        [B] in bits/dim, and the mean squared error [B] in units of [-1, 1].
    """
    x_t = q_sample(process, x_0=x_0, t=t, eps=eps)
    model_output = denoise_fn(x_t, process.network_t(t)).astype(jnp.float32)
    term, x_0_pred = vb_terms_bpd(process, model_output=model_output, x_0=x_0, x_t=x_t, t=t, clip=clip)
    return term, jnp.mean((x_0_pred - x_0) ** 2, axis=(1, 2, 3))


def bpd_loop(process: Process, denoise_fn: DenoiseFn, *, x_0: jax.Array, keys: jax.Array, clip: bool = True) -> Bound:
    """Computes every term of the bound (Eq. 5), each at an x_t of its own: one scan over T timesteps.

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        x_0: [B, H, W, C], 8-bit images in [-1, 1].
        keys: [B], one an image, as `sampling.image_keys` makes them; x_t is drawn with `sampling.noise(keys, t, ...)`.
        clip: see `bpd_term`.
    """
    check_shape("x_0", x_0, "BHWC")
    sampling.check_keys(keys, batch_size=len(x_0))

    def step(carry: None, t: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array]]:
        batch_t = jnp.full(keys.shape, t)  # [B]
        eps = sampling.noise(keys, t, x_0.shape[1:])
        return carry, bpd_term(process, denoise_fn, x_0=x_0, t=batch_t, eps=eps, clip=clip)

    _, (terms, mse) = jax.lax.scan(step, None, jnp.arange(process.num_timesteps))  # [T, B]
    prior = prior_bpd(process, x_0=x_0)
    return Bound(total=terms.sum(axis=0) + prior, terms=terms.T, prior=prior, mse=mse.T)


def bpd_chain(process: Process, denoise_fn: DenoiseFn, *, clip: bool = True) -> sampling.Chain:
    """Makes what `bpd_loop` computes as a whole, to be computed in pieces: step number n is that of t = n.

    It takes the arrays x_0 [B, H, W, C] and keys [B] where a sampler's chain takes keys, and a `Bound` is read.
    """

    def init(x_0: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        zeros = jnp.zeros((process.num_timesteps, len(keys)))
        return zeros, zeros, prior_bpd(process, x_0=x_0)

    def run(carried: tuple, begin: jax.Array, end: jax.Array, x_0: jax.Array, keys: jax.Array) -> tuple:
        def step(t: jax.Array, carried: tuple) -> tuple:
            terms, mse, prior = carried
            eps = sampling.noise(keys, t, x_0.shape[1:])
            term, error = bpd_term(process, denoise_fn, x_0=x_0, t=jnp.full(keys.shape, t), eps=eps, clip=clip)
            return terms.at[t].set(term), mse.at[t].set(error), prior

        return jax.lax.fori_loop(begin, end, step, carried)

    def read(carried: tuple) -> Bound:
        terms, mse, prior = carried
        return Bound(total=terms.sum(axis=0) + prior, terms=terms.T, prior=prior, mse=mse.T)

    return sampling.Chain(process.num_timesteps, init, run, read)


def strata(num_timesteps: int, count: int) -> np.ndarray:
    """Splits 0..T-1 into `count` ranges that grow in proportion to t, as the terms of the bound fall about as 1 / t.

    Returns:
        [count + 1] int, the edges, from 0 to T: stratum k is edges[k] .. edges[k + 1] - 1. If there are several, the
        first is t = 0 alone.

    Raises:
        ValueError: unless 1 <= count <= T.
    """
    if not 1 <= count <= num_timesteps:
        raise ValueError(f"num_timesteps={count} must be from 1 to the process's {num_timesteps}.")
    edges = [0]
    for left in range(count, 1, -1):  # how many strata the rest is to be split into
        growth = (num_timesteps / max(edges[-1], 1)) ** (1.0 / left)
        edges.append(max(edges[-1] + 1, round(edges[-1] * growth)))
    return np.array([*edges, num_timesteps])


def bpd_estimate(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0: jax.Array,
    keys: jax.Array,
    num_timesteps: int,
    clip: bool = True,
) -> jax.Array:
    """Estimates the total of `bpd_loop` from K timesteps an image, without bias.

    From each of the K `strata`, the image's key draws one t, whose term is multiplied by the number of timesteps in the
    stratum. The noise at t is that of `bpd_loop`, so K = T gives its total.

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        x_0: [B, H, W, C], 8-bit images in [-1, 1].
        keys: [B], one an image.
        num_timesteps: K, from 1 to T.
        clip: see `bpd_term`.

    Returns:
        [B] in bits/dim.

    Raises:
        ValueError: if K is out of range.
    """
    check_shape("x_0", x_0, "BHWC")
    sampling.check_keys(keys, batch_size=len(x_0))
    edges = strata(process.num_timesteps, num_timesteps)

    @sampling.pinned
    def draw(key: jax.Array) -> jax.Array:  # [K]
        t_rng = jax.random.fold_in(key, process.num_timesteps)  # 0..T-1 are taken by the noise
        return jax.random.randint(t_rng, (num_timesteps,), edges[:-1], edges[1:], jnp.int32)

    def step(total: jax.Array, stratum: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        t, size = stratum
        eps = sampling.noise(keys, t, x_0.shape[1:])
        term, _ = bpd_term(process, denoise_fn, x_0=x_0, t=t, eps=eps, clip=clip)
        return total + size * term, None

    sizes = jnp.asarray(np.diff(edges), jnp.float32)  # [K]
    total, _ = jax.lax.scan(step, prior_bpd(process, x_0=x_0), (sampling.over_keys(draw)(keys).T, sizes))
    return total


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
    shape, n = x_0.shape[1:], x_0[0].size
    if not 1 <= num_steps < process.num_timesteps:
        raise ValueError(f"num_steps={num_steps} must be from 1 to {process.num_timesteps - 1}.")
    timesteps = samplers.spaced(process, num_steps + 1, "karras")
    level = levels_at(process, timesteps)
    begin, end = level.ratio[:-1], level.ratio[1:]
    middle = (begin + end) / 2.0
    middle_t = timesteps_at(process, middle)
    draw = lambda index: sampling.noise(keys, index, shape, stream=sampling.ODE)  # noqa: E731
    if dequantize:
        x_0 = x_0 + (jax.scipy.stats.norm.cdf(draw(0)) - 0.5) / 127.5
    normal = jax.lax.map(draw, 1 + jnp.arange(num_probes, dtype=jnp.int32))
    probes = jnp.where(normal < 0.0, jnp.float32(-1.0), jnp.float32(1.0))  # [P, B, H, W, C]
    predict_fn = make_predict_fn(process, denoise_fn, constrain=None)

    def drift(x: jax.Array, ratio: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns d(x / signal) / d ratio = eps and the estimates of its divergence, [P, B]."""
        signal, t = jax.lax.rsqrt(1.0 + ratio**2), jnp.full(keys.shape, t)
        eps, derivative = jax.linearize(lambda x: predict_fn(signal * x, t).eps, x)
        return eps, jnp.sum(probes * jax.vmap(derivative)(probes), axis=(2, 3, 4))

    def stage(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        start, previous, total = carry
        ratio, t, share, weight = inputs
        rates = drift(start + share * previous, ratio, t)
        total = jax.tree.map(lambda sum_so_far, rate: sum_so_far + weight * rate, total, rates)
        return (start, rates[0], total), None

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        zero = jax.tree.map(jnp.zeros_like, carry)
        (_, _, change), _ = jax.lax.scan(stage, (carry[0], zero[0], zero), inputs)
        return jax.tree.map(jnp.add, carry, change), None

    h = end - begin
    tables = (  # [K, 4] each, by step and stage
        np.stack([begin, middle, middle, end], axis=1),
        np.stack([timesteps[:-1], middle_t, middle_t, timesteps[1:]], axis=1),
        h[:, None] * [0.0, 0.5, 0.5, 1.0],
        h[:, None] * [1 / 6, 1 / 3, 1 / 3, 1 / 6],
    )
    start = jnp.asarray(x_0 / np.float32(level.signal[0]), jnp.float32), jnp.zeros((num_probes, len(x_0)), jnp.float32)
    inputs = tuple(jnp.asarray(table, jnp.float32) for table in tables)
    (x, divergence), _ = jax.lax.scan(step, start, inputs)
    x_t = level.signal[-1].astype(np.float32) * x
    log_prior = -0.5 * jnp.sum(x_t**2, axis=(1, 2, 3)) - 0.5 * n * np.log(2.0 * np.pi)
    log_p = log_prior[None] + divergence + n * np.log(level.signal[-1] / level.signal[0])
    return (np.log2(127.5) - log_p / (n * np.log(2.0))).T


class Mean(NamedTuple):
    """A mean over images, with its standard error; float64 [...]."""

    mean: np.ndarray
    standard_error: np.ndarray


def mean_over_images(values: np.ndarray) -> Mean:
    """Computes the mean of `values` [N, ...] over N >= 2 images, and its standard error: their deviation / sqrt(N)."""
    values = np.asarray(values, np.float64)
    return Mean(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def progressive_rate(*, terms: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Computes the bits/dim that progressive coding has sent by the time x_t is known (Section 4.3).

    That is L_T + L_{T-1} + ... + L_{t+1}. At t = 0 it is the paper's rate, L_1 + ... + L_T; adding the distortion L_0
    gives the whole bound.

    Args:
        terms: [N, T] in bits/dim, L_0 .. L_{T-1}.
        prior: [N] in bits/dim, L_T.

    Returns:
        [N, T] float64.
    """
    sent = np.concatenate([prior[:, None], terms[:, :0:-1]], axis=1, dtype=np.float64)  # [N, T], T-1 to 0
    return np.cumsum(sent, axis=1)[:, ::-1]


def progressive_rmse(mse: np.ndarray) -> Mean:
    """Computes the distortion of progressive coding: the root mean squared error of the x_0 predicted from x_t.

    Args:
        mse: [N, T], in units of [-1, 1].

    Returns:
        [T], on the scale 0..255; the standard error is that of `mse`, propagated through the root.
    """
    mean, error = mean_over_images(mse)
    rmse = np.sqrt(mean)
    return Mean(127.5 * rmse, 127.5 * error / (2.0 * np.maximum(rmse, 1e-12)))
