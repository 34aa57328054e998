"""The reverse chain: the one scan that every sampler runs in, whole or from any x_t on.

The sampler is Algorithm 2 of Ho et al. 2020, unless another is given.

Timesteps are 0-based as everywhere: step t takes the paper's x_{t+1} to its x_t. Where an x_t is given, `num_steps`
says how many steps are left; in Algorithm 2 that is the paper's t, 0 for an image and T for pure noise.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import samplers
from ddpm_jax.arguments import check_alike, check_range, check_shape, check_timesteps
from ddpm_jax.diffusion import Constrain, DenoiseFn, PredictFn, Process, clip_x_0, make_predict_fn
from ddpm_jax.samplers import Sampler
from ddpm_jax.sampling.keys import check_keys, noise

NoiseFn = Callable[[jax.Array, jax.Array | int, tuple[int, int, int]], jax.Array]  # (keys, index, shape) -> noise


def p_sample(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_t: jax.Array,
    t: jax.Array,
    eps: jax.Array,
    clip: bool | Constrain = True,
) -> tuple[jax.Array, jax.Array]:
    """Takes one step of Algorithm 2 (lines 3 and 4), with the noise given by the caller.

    Args:
        process: coefficients and choices.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).
        eps: [B, H, W, C] standard normal noise; ignored where t = 0.
        clip: clip the predicted x_0 to [-1, 1], as the official sampler does; or a function of it, such as
            `diffusion.dynamic_threshold`, that is applied in its place.

    Returns:
        x_{t-1} [B, H, W, C] and the predicted x_0 [B, H, W, C].
    """
    check_alike(x_t=x_t, eps=eps)
    check_shape("x_t", x_t, "BHWC")
    check_timesteps(t, batch_size=len(x_t), num_timesteps=process.num_timesteps)
    return samplers.ancestral(process).step(_predict_fn(process, denoise_fn, clip), x_t, t, eps)


def sample_loop(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    keys: jax.Array,
    shape: tuple[int, int, int],
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> jax.Array:
    """Draws images by the whole reverse chain, x_T to x_0 (Algorithm 2): one scan over its steps.

    Pure: may be jitted, vmapped, or called inside a larger jitted function.

    Args:
        process: coefficients of T timesteps.
        denoise_fn: the network, closed over its parameters.
        keys: [B], one an image, as `image_keys` makes them.
        shape: (H, W, C) of one image.
        clip: clip the predicted x_0 to [-1, 1] at every step, or a function; see `p_sample`.
        sampler: how to get from x_T to x_0; None is `samplers.ancestral(process)`.
        noise_fn: `(keys, index, shape) -> [B, H, W, C]`: x_T for index T, the noise of step i for index i, which is
            traced; in a sampler of more than T steps, for index i + 1 from i = T on. Known noise, [T + 1, B, H, W, C],
            is given as `lambda keys, index, shape: known[index]`.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    chain = sample_chain(process, denoise_fn, shape=shape, clip=clip, sampler=sampler, noise_fn=noise_fn)
    return _whole(chain, keys)[0]


class Chain(NamedTuple):
    """The reverse chain of a batch, to be taken in pieces of any numbers of steps, which end where the whole does.

    What the pieces hand on is `carried`: what the sampler carries, and what is kept on the way.

    Attributes:
        num_steps: K of the whole; scalar int.
        init: `keys [B] -> carried`, before the first step.
        run: `(carried, begin, end, keys [B]) -> carried`, after `end` of the steps, of which `begin` were taken before:
            scalar ints, which may be traced.
        read: `carried -> x_0 [B, H, W, C], what was kept [B, K, H, W, C]`, after the last step.
    """

    num_steps: jax.Array | int
    init: Callable[[jax.Array], Any]
    run: Callable[[Any, jax.Array | int, jax.Array | int, jax.Array], Any]
    read: Callable[[Any], tuple[jax.Array, jax.Array]]


def sample_chain(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    shape: tuple[int, int, int],
    timesteps: Sequence[int] = (),
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> Chain:
    """Makes the chain that `progressive_loop` takes as a whole; without `timesteps` it is that of `sample_loop`.

    For a caller that must come back between steps: to show how far it is, or to be stopped. The arguments are those of
    `progressive_loop`, which see.
    """
    return _chain(
        process, denoise_fn, x_t=lambda keys: noise_fn(keys, process.num_timesteps, shape), num_steps=None, clip=clip,
        sampler=sampler, noise_fn=noise_fn, timesteps=timesteps, keep=lambda x_t, x_0: x_0,
    )  # fmt: skip


def progressive_loop(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    keys: jax.Array,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> tuple[jax.Array, jax.Array]:
    """Draws what `sample_loop` draws, and keeps x_0 as predicted on the way (Section 4.3, Figures 6, 10 and 14).

    Args:
        process, denoise_fn, keys, shape, clip, sampler, noise_fn: see `sample_loop`.
        timesteps: K different ints in [0, T): the steps whose prediction is kept. No other is stored.

    Returns:
        x_0 [B, H, W, C], and the predictions [B, K, H, W, C] in the order of `timesteps`.

    Raises:
        ValueError: if a timestep is none of the sampler's, or given twice.
    """
    chain = sample_chain(
        process, denoise_fn, shape=shape, timesteps=timesteps, clip=clip, sampler=sampler, noise_fn=noise_fn
    )
    return _whole(chain, keys)


def latents_loop(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    keys: jax.Array,
    shape: tuple[int, int, int],
    timesteps: Sequence[int],
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> tuple[jax.Array, jax.Array]:
    """Draws what `progressive_loop` draws, and keeps the x_t that a step begins with: the latents of Figure 7.

    Returns:
        x_0 [B, H, W, C], and x_t [B, K, H, W, C] in the order of `timesteps`. That of timestep t holds t + 1 steps of
        noise: it is the paper's x_{t+1}, which `decode(..., num_steps=t + 1)` continues.
    """
    chain = _chain(
        process, denoise_fn, x_t=lambda keys: noise_fn(keys, process.num_timesteps, shape), num_steps=None, clip=clip,
        sampler=sampler, noise_fn=noise_fn, timesteps=timesteps, keep=lambda x_t, x_0: x_t,
    )  # fmt: skip
    return _whole(chain, keys)


def decode(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_t: jax.Array,
    num_steps: jax.Array | int,
    keys: jax.Array,
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> jax.Array:
    """Draws x_0 from p(x_0 | x_t): the rest of the reverse chain. With several keys for one x_t, Figure 7.

    With the keys of the chain that x_t was taken from, it ends in that chain's own image.

    Args:
        process, denoise_fn, clip, sampler, noise_fn: see `sample_loop`.
        x_t: [B, H, W, C].
        num_steps: scalar int in 0..T, how many steps are left to take; with 0 `x_t` is returned as it is. May be
            traced, so that one compiled function serves all; the gradient exists only where it is a Python int.
        keys: [B], of the noise of the steps.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    chain = _chain(
        process, denoise_fn, x_t=lambda _: x_t, num_steps=num_steps, clip=clip, sampler=sampler, noise_fn=noise_fn
    )
    return _whole(chain, keys)[0]


def encode(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0: jax.Array,
    timesteps: np.ndarray | None = None,
    clip: bool | Constrain = False,
) -> jax.Array:
    """Encodes images by DDIM's inversion, without any noise (Song, Meng, Ermon 2020, Section 5.4).

    Args:
        process, denoise_fn: see `sample_loop`.
        x_0: [B, H, W, C] in [-1, 1].
        timesteps: [K], rising; None: all of the process. More of them, a smaller error.
        clip: see `sample_loop`; what is clipped is not inverted.

    Returns:
        [B, H, W, C], the x_t of the last of the timesteps. `decode` takes it to an image again, with the sampler
        `samplers.ddim(process, timesteps)` and `num_steps=K`.
    """
    sampler, keys = samplers.ddim_inversion(process, timesteps), jnp.zeros(x_0.shape[:1])
    chain = _chain(
        process, denoise_fn, x_t=lambda _: x_0, num_steps=None, clip=clip, sampler=sampler,
        noise_fn=lambda keys, index, shape: jnp.zeros_like(x_0),
    )  # fmt: skip
    return _whole(chain, keys)[0]


def _whole(chain: Chain, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    return chain.read(chain.run(chain.init(keys), 0, chain.num_steps, keys))


def _chain(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_t: Callable[[jax.Array], jax.Array],
    num_steps: jax.Array | int | None,
    clip: bool | Constrain,
    sampler: Sampler | None,
    noise_fn: NoiseFn,
    timesteps: Sequence[int] = (),
    keep: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
) -> Chain:
    """Makes the chain of the last `num_steps` steps, or of all, from `x_t(keys)` on; it keeps keep(x_t, x_0)."""
    sampler = sampler or samplers.ancestral(process)
    num_steps = sampler.num_steps if num_steps is None else num_steps
    predict_fn = _predict_fn(process, denoise_fn, clip)
    slots = jnp.asarray(_slots(timesteps, sampler))

    check_range("num_steps", num_steps, 0, sampler.num_steps)

    def init(keys: jax.Array) -> tuple[Any, jax.Array]:
        check_keys(keys)
        x = x_t(keys)
        check_shape("x_t", x, (len(keys), "H", "W", "C"), what="one for each of the keys")
        return sampler.init(x), jnp.zeros((len(timesteps), *x.shape), x.dtype)

    def run(carried: tuple[Any, jax.Array], begin: Any, end: Any, keys: jax.Array) -> tuple[Any, jax.Array]:
        def step(taken: jax.Array, carried: tuple[Any, jax.Array]) -> tuple[Any, jax.Array]:
            (carry, kept), i = carried, num_steps - 1 - taken
            index = i if sampler.num_steps <= process.num_timesteps else i + (i >= process.num_timesteps)  # T is of x_T
            after, x_0 = sampler.step(predict_fn, carry, i, noise_fn(keys, index, kept.shape[2:]))
            if timesteps:
                kept = kept.at[slots[i]].set(keep(sampler.read(carry), x_0), mode="drop")
            return after, kept

        return jax.lax.fori_loop(begin, end, step, carried)  # a scan, where both are Python ints

    def read(carried: tuple[Any, jax.Array]) -> tuple[jax.Array, jax.Array]:
        carry, kept = carried
        return sampler.read(carry), jnp.moveaxis(kept, 0, 1)

    return Chain(num_steps, init, run, read)


def _predict_fn(process: Process, denoise_fn: DenoiseFn, clip: bool | Constrain) -> PredictFn:
    constrain = clip if callable(clip) else clip_x_0 if clip else None
    return make_predict_fn(process, denoise_fn, constrain=constrain)


def _slots(timesteps: Sequence[int], sampler: Sampler) -> np.ndarray:
    """Looks up where the result of each step is kept: its place among the K `timesteps`, or K, past the end; int32."""
    step_of = {t: i for i, t in reversed([*enumerate(sampler.timesteps.tolist())])}  # of several the last that is taken
    if len(set(timesteps)) < len(timesteps) or not set(timesteps) <= step_of.keys():
        last = sampler.timesteps[-1]
        raise ValueError(f"timesteps={list(timesteps)} must be different integers in 0..{last}, of the sampler's own.")
    slots = np.full(sampler.num_steps, len(timesteps), np.int32)
    slots[[step_of[t] for t in timesteps]] = np.arange(len(timesteps))
    return slots
