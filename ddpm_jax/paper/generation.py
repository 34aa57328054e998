"""The paper's figures of what a model does on its way, as tables of images: uint8 [rows, columns, H, W, C].

Ho et al. 2020, Figures 6 to 10 and 14. `num_steps` is how many steps of noise an x_t holds: the paper's t, 0 for an
image, T for pure noise; where the paper names a t of its T = 1000, the same part of another T is taken.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from ddpm_jax import images, parallel, sampling
from ddpm_jax.runs.experiment import Experiment

_WEIGHTS = np.arange(11) / 10  # lambda: both reconstructions, and 0.1 to 0.9 between them


def evenly(num_timesteps: int, count: int) -> list[int]:
    """Up to `count` different timesteps, from T - 1 to 0."""
    return sorted({round(t) for t in np.linspace(0, num_timesteps - 1, count)}, reverse=True)


def parts(num_timesteps: int, fractions: Sequence[float]) -> list[int]:
    """These fractions of T as different numbers of steps, the largest first."""
    return sorted({round(num_timesteps * fraction) for fraction in fractions}, reverse=True)


def predictions(made: Experiment, timesteps: Sequence[int]) -> Callable[[Any, jax.Array], jax.Array]:
    """What draws the x_0 predicted at some timesteps: `(params, keys [B]) -> uint8 [B, K, H, W, C]`."""

    def draw(params: Any, keys: jax.Array) -> jax.Array:
        _, predicted = sampling.progressive_loop(
            made.process, made.denoise_fn(params), keys=keys, shape=made.image_shape, timesteps=timesteps,
            clip=made.config.sample.clip,
        )  # fmt: skip
        return images.to_uint8(predicted)

    return draw


def progressive(
    made: Experiment, params: Any, *, seed: int, num_images: int, timesteps: Sequence[int], batch_size: int
) -> np.ndarray:
    """Figures 6 and 14: a row an image, numbers 0, 1, ... of the seed; a column the x_0 predicted at each timestep."""
    keys = sampling.image_keys(seed, np.arange(num_images))
    run = parallel.pmap_batches(predictions(made, timesteps))
    with tqdm(total=num_images, unit="image") as bar:
        return _in_batches(run, params, keys, batch_size=batch_size, bar=bar)


def shared_latents(
    made: Experiment, params: Any, *, seed: int, num_images: int, num_steps: Sequence[int], batch_size: int
) -> np.ndarray:
    """Figure 7: a row for each of `num_steps`, with x_t at the left, clipped to be shown, and images that share it.

    Every x_t is of one chain, that of image 0 of the seed. Column j continues with the key of image j: the first
    image of every row is the chain's own, the others differ by the noise of the steps that are left.
    """
    clip = made.config.sample.clip

    def freeze(params: Any, keys: jax.Array) -> jax.Array:  # [B, K, H, W, C]
        _, x_t = sampling.latents_loop(
            made.process, made.denoise_fn(params), keys=keys, shape=made.image_shape,
            timesteps=[steps - 1 for steps in num_steps], clip=clip,
        )  # fmt: skip
        return x_t

    def decode(params_and_steps: tuple[Any, jax.Array], x_t: jax.Array, keys: jax.Array) -> jax.Array:
        params, steps = params_and_steps
        return images.to_uint8(
            sampling.decode(made.process, made.denoise_fn(params), x_t=x_t, num_steps=steps, keys=keys, clip=clip)
        )

    keys = sampling.image_keys(seed, np.arange(num_images))
    run, rows = parallel.pmap_batches(decode), []
    with tqdm(total=1 + len(num_steps) * num_images, unit="image") as bar:
        frozen = _in_batches(parallel.pmap_batches(freeze), params, keys[:1], batch_size=1, bar=bar)  # [1, K, H, W, C]
        for steps, x_t in zip(num_steps, frozen[0], strict=True):
            arrays = np.broadcast_to(x_t, (num_images, *x_t.shape)), keys
            shared = _in_batches(run, (params, jnp.int32(steps)), *arrays, batch_size=batch_size, bar=bar)
            rows.append(np.concatenate([images.to_uint8(x_t)[None], shared]))
    return np.stack(rows)


def interpolations(
    made: Experiment, params: Any, *, pairs: np.ndarray, seed: int, num_steps: Sequence[int], batch_size: int
) -> np.ndarray:
    """Figures 8 and 9: a row for each of `num_steps` and, within it, each pair of images.

    The columns are the first image, its reconstruction (lambda = 0), lambda = 0.1 to 0.9, the second image's
    reconstruction (lambda = 1), the second image. All noise, of encoding and decoding, is fixed over a row, and over
    the rows of a pair.

    Args:
        made: what the config describes.
        params: of the network, replicated.
        pairs: [P, 2, H, W, C] uint8.
        seed: pair p has the key of image p for decoding, and those of 2p and 2p + 1 for encoding.
        num_steps: of encoding and decoding, each in 0..T.
        batch_size: images at a time.
    """

    def draw(params_and_steps: tuple[Any, jax.Array], *arrays: jax.Array) -> jax.Array:
        (params, steps), (x_0, keys, encoding_keys, weight) = params_and_steps, arrays
        x_0_a, x_0_b = jnp.moveaxis(images.from_uint8(x_0), 1, 0)
        eps_a, eps_b = (
            sampling.noise(encoding_keys[:, side], made.process.num_timesteps, made.image_shape) for side in (0, 1)
        )
        drawn = sampling.interpolate(
            made.process, made.denoise_fn(params), x_0_a=x_0_a, x_0_b=x_0_b, eps_a=eps_a, eps_b=eps_b, weight=weight,
            num_steps=steps, keys=keys, clip=made.config.sample.clip,
        )  # fmt: skip
        return images.to_uint8(drawn)

    n, columns = len(pairs), len(_WEIGHTS)
    pair = np.repeat(np.arange(n), columns)  # [n * columns]
    keys = sampling.image_keys(seed, pair)
    encoding_keys = sampling.image_keys(seed, np.arange(2 * n)).reshape(n, 2)[pair]
    arrays = pairs[pair], keys, encoding_keys, np.tile(_WEIGHTS.astype(np.float32), n)
    run, rows = parallel.pmap_batches(draw), []
    with tqdm(total=len(num_steps) * len(pair), unit="image") as bar:
        for steps in num_steps:
            drawn = _in_batches(run, (params, jnp.int32(steps)), *arrays, batch_size=batch_size, bar=bar)
            between = drawn.reshape(n, columns, *made.image_shape)
            rows.append(np.concatenate([pairs[:, :1], between, pairs[:, 1:]], axis=1))
    return np.concatenate(rows)


def _in_batches(run: Callable, shared: Any, *arrays: Any, batch_size: int, bar: tqdm) -> np.ndarray:
    """`run(shared, *arrays)` in batches of up to `batch_size`, all of one size, so that nothing is compiled twice."""
    n = len(arrays[0])
    size = -(-n // -(-n // batch_size))  # as equal as can be; the last is filled up
    batches = []
    for start in range(0, n, size):
        rows = np.minimum(np.arange(start, start + size), n - 1)
        batches.append(np.asarray(run(shared, *(array[rows] for array in arrays))))
        bar.update(min(size, n - start))
    return np.concatenate(batches)[:n]
