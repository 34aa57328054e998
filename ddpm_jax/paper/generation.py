"""The paper's figures of a model's chain, as tables of images: uint8 [rows, columns, H, W, C].

Ho et al. 2020, Figures 6 to 9 and 14. `num_steps` is how many steps of noise an x_t holds: the paper's t, 0 for an
image, T for pure noise; where the paper names a t of its T = 1000, the same part of another T is taken. Every process
calls these functions alike.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import images, parallel, sampling
from ddpm_jax.evaluation.progressive import map_predictions
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.image_tables import in_batches, progress_bar
from ddpm_jax.runs.sample_files import map_images

WEIGHTS = np.arange(11) / 10  # lambda: both reconstructions, and 0.1 to 0.9 between them


def fractions_of(num_timesteps: int, fractions: Sequence[float]) -> list[int]:
    """Returns these fractions of T as different numbers of steps, the largest first."""
    return sorted({round(num_timesteps * fraction) for fraction in fractions}, reverse=True)


def progressive(
    experiment: Experiment, params: Any, *, seed: int, num_images: int, timesteps: Sequence[int], batch_size: int
) -> np.ndarray:
    """Draws Figures 6 and 14: a row for each image of the seed; a column the x_0 predicted at each timestep."""
    inputs = experiment.inputs(seed, np.arange(num_images))
    run = map_predictions(experiment, tuple(timesteps))
    with progress_bar(num_images) as bar:
        return in_batches(run, params, *inputs, batch_size=batch_size, bar=bar)


def shared_latents(
    experiment: Experiment, params: Any, *, seed: int, num_images: int, num_steps: Sequence[int], batch_size: int
) -> np.ndarray:
    """Draws Figure 7: a row for each of `num_steps`, with x_t at the left, clipped to be shown, and images from it.

    Every x_t is of one chain, that of image 0 of the seed. Column j continues with the key of image j: the first
    image of every row is the chain's own, the others differ by the noise of the steps that are left. All are of the
    class of image 0.
    """
    clip = experiment.clip

    def freeze(params: Any, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:  # [B, K, H, W, C]
        _, x_t = sampling.latents_loop(
            experiment.process, experiment.guided_fn(params, labels), keys=keys, shape=experiment.image_shape,
            timesteps=[steps - 1 for steps in num_steps], clip=clip,
        )  # fmt: skip
        return x_t

    def decode(
        params_and_steps: tuple[Any, jax.Array], x_t: jax.Array, keys: jax.Array, labels: jax.Array | None = None
    ) -> jax.Array:
        params, steps = params_and_steps
        return sampling.decode(
            experiment.process, experiment.guided_fn(params, labels), x_t=x_t, num_steps=steps, keys=keys, clip=clip
        )

    keys, *labels = experiment.inputs(seed, np.arange(num_images))
    labels = [np.broadcast_to(of_images[0], num_images) for of_images in labels]
    run, rows = map_images(decode), []
    with progress_bar(1 + len(num_steps) * num_images) as bar:
        first = (array[:1] for array in (keys, *labels))
        frozen = in_batches(parallel.map_batches(freeze), params, *first, batch_size=1, bar=bar)  # [1, K, H, W, C]
        for steps, x_t in zip(num_steps, frozen[0], strict=True):
            arrays = np.broadcast_to(x_t, (num_images, *x_t.shape)), keys, *labels
            shared = in_batches(run, (params, jnp.int32(steps)), *arrays, batch_size=batch_size, bar=bar)
            rows.append(np.concatenate([np.asarray(images.to_uint8(x_t))[None], shared]))
    return np.stack(rows)


def interpolations(
    experiment: Experiment, params: Any, *, pairs: np.ndarray, seed: int, num_steps: Sequence[int], batch_size: int
) -> np.ndarray:
    """Draws Figures 8 and 9: a row for each of `num_steps` and, within it, each pair of images.

    The columns are the first image, its reconstruction (lambda = 0), lambda = 0.1 to 0.9, the second image's
    reconstruction (lambda = 1), the second image. All noise, of encoding and decoding, is fixed over a row, and over
    the rows of a pair.

    Args:
        experiment: the process and the network.
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
            sampling.noise(encoding_keys[:, side], experiment.process.num_timesteps, experiment.image_shape)
            for side in (0, 1)
        )
        return sampling.interpolate(
            experiment.process, experiment.guided_fn(params), x_0_a=x_0_a, x_0_b=x_0_b, eps_a=eps_a, eps_b=eps_b,
            weight=weight, num_steps=steps, keys=keys, clip=experiment.clip,
        )  # fmt: skip

    n, columns = len(pairs), len(WEIGHTS)
    pair = np.repeat(np.arange(n), columns)  # [n * columns]
    keys = experiment.image_keys(seed, pair)
    encoding_keys = experiment.image_keys(seed, np.arange(2 * n)).reshape(n, 2)[pair]
    arrays = pairs[pair], keys, encoding_keys, np.tile(WEIGHTS.astype(np.float32), n)
    run, rows = map_images(draw), []
    with progress_bar(len(num_steps) * len(pair)) as bar:
        for steps in num_steps:
            between = in_batches(run, (params, jnp.int32(steps)), *arrays, batch_size=batch_size, bar=bar)
            between = between.reshape(n, columns, *experiment.image_shape)
            rows.append(np.concatenate([pairs[:, :1], between, pairs[:, 1:]], axis=1))
    return np.concatenate(rows)
