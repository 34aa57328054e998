"""Training: Algorithm 1 of Ho et al. 2020, with Adam and an exponential moving average of the weights.

A step's randomness is a function of (seed, step, index in the global batch), so the result does not depend on how
the batch is spread over devices and microbatches, to float rounding. Only dropout masks depend on it: one is drawn for
each part of the batch that is computed at once, so N devices with M microbatches each draw those of N x M devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from ddpm_jax import averaging, images, sampling, timesteps
from ddpm_jax.diffusion import Process, training_losses
from ddpm_jax.ops import random
from ddpm_jax.timesteps import TimestepSampler

ConditionFn = Callable[[jax.Array], jax.Array]  # labels [B, ...] -> cond [B, D]

_DROPPING = 2**31  # folded into an image's key, for the choice whether its label is dropped: no split leads there


class Batch(Protocol):
    """The images of a step, in any pytree with these two fields, as `data.Batch`."""

    images: jax.Array  # [B, H, W, C] uint8
    labels: jax.Array  # [B] int32; or what else [B, ...] a `ConditionFn` makes conditions of


@flax.struct.dataclass
class TrainState:
    """Everything that training changes; float32 but for the counters."""

    step: jax.Array  # int32, updates made so far: of the parameters and of their average alike
    params: Any
    ema_params: Any
    opt_state: optax.OptState
    timestep_state: Any = ()  # of the `TimestepSampler`
    averages: dict[str, Any] = flax.struct.field(default_factory=dict)  # more of them, by name: see `averaging`


@flax.struct.dataclass
class Metrics:
    """What one step reports of the global batch; float32 scalars but for the quarters."""

    loss: jax.Array
    quarter_loss: jax.Array  # [4], the sum over the images whose t lies in that quarter of 0..T-1, by their weights
    quarter_count: jax.Array  # [4], how many images that are, by their weights
    grad_norm: jax.Array  # before clipping
    param_norm: jax.Array  # after the update


class NonFiniteError(ArithmeticError):
    """The loss or the gradient norm of a step is not finite."""


def learning_rate_schedule(lr: float, warmup_steps: int) -> optax.Schedule:
    """Makes a learning rate that rises linearly from 0 to `lr` over `warmup_steps` steps and then stays.

    Steps count from 0 as in the official code: the first update has learning rate 0 (without warm-up, `lr`).
    """
    return optax.linear_schedule(0.0, lr, warmup_steps) if warmup_steps else optax.constant_schedule(lr)


def make_optimizer(*, lr: float, warmup_steps: int, clip_norm: float) -> optax.GradientTransformation:
    """Makes Adam (0.9, 0.999, eps 1e-8) on the gradient clipped by its global norm.

    It differs from the official release in two small ways. There, each TPU core clips the gradient of its own 16
    images, and the results are averaged; here the averaged gradient is clipped, so that the number of devices does
    not matter. And TensorFlow 1 adds Adam's epsilon to the root of the second moment before its bias is corrected,
    optax after: that matters only for gradients near 1e-8, in the first steps.

    Args:
        lr: learning rate after warm-up; the paper's is 2e-4, and 2e-5 at 256x256.
        warmup_steps: see `learning_rate_schedule`; the official code's is 5000.
        clip_norm: largest global norm of a gradient, above 0; the official code's is 1.

    Raises:
        ValueError: for another `clip_norm`, with which nothing would be learned.
    """
    if not clip_norm > 0.0:
        raise ValueError(f"clip_norm={clip_norm} must be above 0, or no step changes a weight; 1e9 clips nothing.")
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate_schedule(lr, warmup_steps)))


@sampling.pinned
def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    rng: jax.Array,
    image_shape: tuple[int, int, int],
    timestep_sampler: TimestepSampler | None = None,
    cond_dim: int = 0,
    averages: Sequence[str] = (),
    params: Any = None,
) -> TrainState:
    """Makes the state before the first step; the average starts at the parameters themselves.

    `timestep_sampler` is that of `train_step`, `cond_dim` the width D of the conditions, 0 if there are none, and
    `averages` are the names of further ones. Without `params` they are initialised at random.
    """
    if params is None:
        x, t = jnp.zeros((1, *image_shape)), jnp.zeros((1,), jnp.int32)
        params = jax.jit(model.init)(rng, x, t, *([jnp.zeros((1, cond_dim))] if cond_dim else []))["params"]
    ema_params = jax.tree.map(jnp.copy, params)  # a copy: the state is donated, and no buffer can be donated twice
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=ema_params,
        opt_state=optimizer.init(params),
        timestep_state=timestep_sampler.init() if timestep_sampler else (),
        averages={name: jax.tree.map(jnp.copy, params) for name in averages},
    )


def ema_update(ema_params: Any, params: Any, *, step: jax.Array, decay: float, warmup: bool = False) -> Any:
    """Computes the next average, decay * ema_params + (1 - decay) * params.

    Args:
        ema_params: the average so far.
        params: the parameters after this step's update.
        step: int32, the number of updates of the average before this one.
        decay: 0.9999 in the paper (Appendix B).
        warmup: let the decay rise as (1 + step) / (10 + step) up to `decay`, so that the average of a short run
            forgets its random start.
    """
    if warmup:
        decay = averaging.warmed_up(decay, step)
    return optax.incremental_update(params, ema_params, 1.0 - decay)


def _draw(rng: jax.Array, image_shape: tuple[int, int, int]) -> tuple[jax.Array, ...]:
    """Draws the key of t, the noise and whether to flip, for one image."""
    t_rng, eps_rng, flip_rng = jax.random.split(rng, 3)
    eps = random.normal(eps_rng, image_shape)
    return t_rng, eps, jax.random.bernoulli(flip_rng, jnp.float32(0.5))


def _drop_labels(rngs: jax.Array, probability: float) -> jax.Array:
    """Draws whether the label of each image is dropped, from keys [b] of which `_draw` draws something else."""
    draw = lambda rng: jax.random.bernoulli(jax.random.fold_in(rng, _DROPPING), jnp.float32(probability))  # noqa: E731
    return sampling.over_keys(draw)(rngs)


@sampling.pinned
def train_step(
    state: TrainState,
    batch: Batch,
    *,
    rng: jax.Array,
    process: Process,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    loss_type: str,
    ema_decay: float,
    ema_warmup: bool,
    flip: bool,
    axis_name: str | None = None,
    microbatches: int = 1,
    timestep_sampler: TimestepSampler | None = None,
    loss_weighting: str = "",
    condition_fn: ConditionFn | None = None,
    label_dropout: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """Takes one step of Algorithm 1, alone or as one device of a `pmap` over `axis_name`.

    Args:
        state: replicated.
        batch: this device's images, B of them; device d holds the images d * B .. d * B + B - 1 of the global batch.
        rng: the key of the run, the same at each step and on each device.
        process: coefficients, and what the network predicts.
        model: the U-Net.
        optimizer: from `make_optimizer`.
        loss_type: see `diffusion.training_losses`.
        ema_decay: see `ema_update`.
        ema_warmup: see `ema_update`.
        flip: mirror every second image left to right, at random.
        axis_name: of the mapped axis, over which losses and gradients are averaged; None outside a `pmap`, where the
            batch is the global one.
        microbatches: a divisor of B; that many parts are computed one after another, to need less memory.
        timestep_sampler: draws t, and is `timesteps.uniform` if None. What it learns is part of the state.
        loss_weighting: see `diffusion.training_losses`.
        condition_fn: `labels -> cond [B, D]`, what the network is told of the images; None: nothing.
        label_dropout: the probability with which an image's condition is zeros, so that the network learns to do
            without, too: classifier-free guidance needs it (Ho and Salimans 2022, Algorithm 1).

    Returns:
        The next state and the metrics, both replicated.
    """
    given = batch.images, None if condition_fn is None else batch.labels
    timestep_sampler = timestep_sampler or timesteps.uniform(process.num_timesteps)
    part = functools.partial(
        _gradient, params=state.params, rng=jax.random.fold_in(rng, state.step), process=process, model=model,
        losses_fn=functools.partial(training_losses, loss_type=loss_type, weighting=loss_weighting), flip=flip,
        draw_t=functools.partial(timestep_sampler.draw, state.timestep_state), condition_fn=condition_fn,
        label_dropout=label_dropout,
    )  # fmt: skip
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    parts = device * microbatches + jnp.arange(microbatches)  # of the global batch
    if microbatches == 1:
        total, t, losses = part(parts[0], *given)
    else:
        split = parts, *jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), given)
        first = jax.tree.map(lambda x: x[0], split)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(part, *first)[0])

        def add(total: MicrobatchGrads, each: tuple) -> tuple[MicrobatchGrads, tuple]:
            grads, *drawn = part(*each)
            return jax.tree.map(jnp.add, total, grads), tuple(drawn)

        total, (t, losses) = jax.lax.scan(add, zeros, split)
    means = jax.tree.map(lambda x: x / microbatches, (total.loss, total.grads))
    sums = total.quarter_loss, total.quarter_count
    if axis_name is not None:
        means, sums = jax.lax.pmean(means, axis_name), jax.lax.psum(sums, axis_name)
    (loss, grads), (quarter_loss, quarter_count) = means, sums
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = ema_update(state.ema_params, params, step=state.step, decay=ema_decay, warmup=ema_warmup)
    metrics = Metrics(
        loss=loss,
        quarter_loss=quarter_loss,
        quarter_count=quarter_count,
        grad_norm=optax.tree.norm(grads),
        param_norm=optax.tree.norm(params),
    )
    timestep_state = state.timestep_state
    if jax.tree.leaves(timestep_state):
        t, losses = t.reshape(-1), losses.reshape(-1)  # in the order of the images, from all devices
        if axis_name is not None:
            t, losses = jax.lax.all_gather((t, losses), axis_name, tiled=True)
        timestep_state = timestep_sampler.update(timestep_state, t, losses)
    averages = averaging.update(state.averages, params, step=state.step, warmup=ema_warmup)
    state = TrainState(
        step=state.step + 1, params=params, ema_params=ema_params, opt_state=opt_state, timestep_state=timestep_state,
        averages=averages,
    )  # fmt: skip
    return state, metrics


@flax.struct.dataclass
class MicrobatchGrads:
    """The gradient of one part of a batch, and what its metrics need; summed over the parts. See `Metrics`."""

    loss: jax.Array
    grads: Any
    quarter_loss: jax.Array
    quarter_count: jax.Array


def _gradient(
    part: jax.Array,
    pixels: jax.Array,
    labels: jax.Array | None,
    *,
    params: Any,
    rng: jax.Array,
    process: Process,
    model: nn.Module,
    losses_fn: Callable[..., jax.Array],
    flip: bool,
    draw_t: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    condition_fn: ConditionFn | None,
    label_dropout: float,
) -> tuple[MicrobatchGrads, jax.Array, jax.Array]:
    """Computes the mean loss of a part [b, H, W, C] uint8 of the global batch, and its gradient; t and losses, [b].

    `part` is its number: that many parts of the same size come before it in the global batch.
    """
    image_rng, dropout_rng = jax.random.split(rng)
    indices = part * len(pixels) + jnp.arange(len(pixels))  # in the global batch
    image_rngs = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(image_rng, indices)
    t_rngs, eps, flipped = sampling.over_keys(lambda key: _draw(key, pixels.shape[1:]))(image_rngs)
    t, weight = draw_t(t_rngs, indices)
    x_0 = images.from_uint8(pixels)
    if flip:
        x_0 = jnp.where(flipped[:, None, None, None], x_0[:, :, ::-1, :], x_0)
    conditions = ()
    if condition_fn is not None:
        dropped = _drop_labels(image_rngs, label_dropout)
        conditions = (jnp.where(dropped[:, None], 0.0, condition_fn(labels)),)  # [b, D]

    def loss_fn(params: Any) -> tuple[jax.Array, jax.Array]:
        def denoise_fn(x_t: jax.Array, t: jax.Array) -> jax.Array:
            rngs = {"dropout": jax.random.fold_in(dropout_rng, part)}
            return model.apply({"params": params}, x_t, t, *conditions, train=True, rngs=rngs)

        losses = losses_fn(process, denoise_fn, x_0=x_0, t=t, eps=eps)  # [b]
        return jnp.mean(weight * losses), losses

    (loss, losses), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
    in_quarter = jax.nn.one_hot(t * 4 // process.num_timesteps, 4, dtype=jnp.float32) * weight[:, None]  # [b, 4]
    sums = MicrobatchGrads(
        loss=loss, grads=grads, quarter_loss=jnp.matmul(losses, in_quarter, precision="highest"),
        quarter_count=in_quarter.sum(axis=0),
    )  # fmt: skip
    return sums, t, losses
