"""The variational bound, term by term (Ho et al. 2020, Eq. 5)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import sampling
from ddpm_jax.arguments import check_shape
from ddpm_jax.diffusion import DenoiseFn, Process, prior_bpd, q_sample, vb_terms_bpd


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
