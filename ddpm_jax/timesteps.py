"""How the timesteps of training are drawn: uniformly, one from each stratum, or by importance.

The t of an image is a function of its key, its index in the global batch and the state, so it does not depend on how
the batch is spread over devices. Importance sampling is that of Nichol and Dhariwal 2021 (arXiv:2102.09672, Eq. 18).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from ddpm_jax.sampling import over_keys, pinned

CHOICES = ("uniform", "stratified", "importance")


class TimestepSampler(NamedTuple):
    """Draws the timesteps of a batch, and may learn from their losses.

    Attributes:
        init: `() -> state`, a pytree of arrays; without any where nothing is learned.
        draw: `(state, keys [b], indices [b]) -> t [b] int32, weight [b] float32`, with a key for each image and its
            index in the global batch. The mean of weight x loss is that of the loss over uniform t.
        update: `(state, t [B], loss [B]) -> state`, with what the whole global batch drew and its unweighted losses, in
            the order of the images.
    """

    init: Callable[[], Any]
    draw: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    update: Callable[[Any, jax.Array, jax.Array], Any]


def make_sampler(name: str, *, num_timesteps: int, batch_size: int) -> TimestepSampler:
    """Makes one of the `CHOICES`; `batch_size` is that of the global batch.

    Raises:
        ValueError: for another name.
    """
    match name:
        case "uniform":
            return uniform(num_timesteps)
        case "stratified":
            return stratified(num_timesteps, batch_size=batch_size)
        case "importance":
            return importance(num_timesteps)
    raise ValueError(f"Timesteps cannot be drawn by {name!r}; choose one of {', '.join(CHOICES)}.")


def uniform(num_timesteps: int) -> TimestepSampler:
    """Draws each t from 0..T-1 by itself (Algorithm 1 of Ho et al. 2020, line 3)."""

    @pinned
    def draw(_: tuple, keys: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        t = over_keys(lambda key: jax.random.randint(key, (), 0, num_timesteps, jnp.int32))(keys)
        return t, jnp.ones(indices.shape, jnp.float32)

    return TimestepSampler(init=tuple, draw=draw, update=lambda state, t, loss: state)


def stratified(num_timesteps: int, *, batch_size: int) -> TimestepSampler:
    """Draws image i of B uniformly from the i-th of B equal parts of 0..T-1: the loss of a batch varies less.

    Which image comes to which part is left to the order of the data, which is random.
    """

    @pinned
    def draw(_: tuple, keys: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        place = over_keys(lambda key: jax.random.uniform(key, (), jnp.float32))(keys)
        t = jnp.int32((indices.astype(jnp.float32) + place) * (num_timesteps / batch_size))
        return jnp.minimum(t, num_timesteps - 1), jnp.ones(indices.shape, jnp.float32)  # the sum may round up to B

    return TimestepSampler(init=tuple, draw=draw, update=lambda state, t, loss: state)


@flax.struct.dataclass
class LossHistory:
    """The last losses of each timestep."""

    losses: jax.Array  # [T, N] float32, the oldest first, 0 after the last
    counts: jax.Array  # [T] int32, how many there are


def importance(num_timesteps: int, *, history: int = 10, uniform_share: float = 0.001) -> TimestepSampler:
    """Draws t in proportion to the root mean square of its last losses, with weights that keep the mean of the loss.

    That varies the least. Until each t has its losses, all are drawn alike.

    Args:
        num_timesteps: T.
        history: how many losses of each t are kept.
        uniform_share: of the draws that are made uniformly, so that no t is forgotten.
    """

    def init() -> LossHistory:
        return LossHistory(jnp.zeros((num_timesteps, history), jnp.float32), jnp.zeros(num_timesteps, jnp.int32))

    @pinned
    def draw(state: LossHistory, keys: jax.Array, indices: jax.Array) -> tuple[jax.Array, jax.Array]:
        p = probabilities(state, uniform_share=uniform_share)
        logits = jnp.log(p)  # with mode='low', those below 1e-7 would be drawn at wrong rates
        t = over_keys(lambda key: jax.random.categorical(key, logits, mode="high").astype(jnp.int32))(keys)
        return t, 1.0 / (num_timesteps * p[t])

    return TimestepSampler(init=init, draw=draw, update=_append)


def probabilities(state: LossHistory, *, uniform_share: float) -> jax.Array:
    """Computes how likely each t is to be drawn, [T] float32; see `importance`."""
    num_timesteps, history = state.losses.shape
    roots = jnp.sqrt(jnp.mean(state.losses**2, axis=1))
    p = (1.0 - uniform_share) * roots / roots.sum() + uniform_share / num_timesteps
    return jnp.where(jnp.all(state.counts == history), p, 1.0 / num_timesteps)


def _append(state: LossHistory, t: jax.Array, loss: jax.Array) -> LossHistory:
    """Takes the losses [B] of timesteps t [B], one after another, and drops the oldest of those with too many."""
    num_timesteps, history = state.losses.shape
    order = jnp.argsort(t, stable=True)
    t, loss = t[order], loss[order]
    rank = jnp.arange(len(t)) - jnp.searchsorted(t, t)  # among those of the same t
    seen = state.counts + jnp.bincount(t, length=num_timesteps).astype(jnp.int32)
    dropped = jnp.maximum(seen - history, 0)  # [T]
    source = jnp.arange(history)[None, :] + dropped[:, None]  # [T, N], past the end where nothing is left
    losses = jnp.take_along_axis(state.losses, source, axis=1, mode="fill", fill_value=0.0)
    place = state.counts[t] + rank - dropped[t]
    place = jnp.where(place < 0, history, place)  # dropped at once; -1 would be the last
    losses = losses.at[t, place].set(loss, mode="drop")
    return LossHistory(losses=losses, counts=seen - dropped)
