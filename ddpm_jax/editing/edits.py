"""Edited images, as tables uint8 [rows, columns, H, W, C], a row for each given image. All processes call these alike.

Image j made of given image i has the key of image i * variants + j of the seed.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import images, samplers, sampling
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.image_tables import in_batches, progress_bar
from ddpm_jax.runs.sample_files import map_images

_GREY = 127  # what hidden pixels are shown as


def inpainted(
    experiment: Experiment, params: Any, *, given: np.ndarray, anew: np.ndarray, jump_length: int, num_resamples: int,
    **settings: int,
) -> np.ndarray:  # fmt: skip
    """Draws part of images anew by RePaint. The columns are the image, what is left of it, and the variants.

    Args:
        experiment: the process, the network and the sampler.
        params: of the network, replicated.
        given: [N, H, W, C] uint8.
        anew: bool [H, W, 1], true where pixels are drawn.
        jump_length, num_resamples: see `samplers.repaint`.
        settings: `variants`, `seed` and `batch_size`.

    Raises:
        ValueError: if RePaint cannot wrap the sampler.
    """

    def draw(params: Any, given: jax.Array, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        sampler = samplers.repaint(
            experiment.process, experiment.sampler(), known=images.from_uint8(given),
            mask=~jnp.asarray(anew)[None], jump_length=jump_length, num_resamples=num_resamples,
        )  # fmt: skip
        return sampling.sample_loop(
            experiment.process, experiment.guided_fn(params, labels), keys=keys, shape=experiment.image_shape,
            clip=experiment.clip, sampler=sampler,
        )  # fmt: skip

    hidden = np.where(anew, np.uint8(_GREY), given)
    return _table(experiment, params, draw, [given, hidden], **settings)


def image_to_image(
    experiment: Experiment, params: Any, *, given: np.ndarray, strength: float, **settings: int
) -> np.ndarray:
    """Draws images that resemble others by SDEdit. The columns are the image and the variants.

    Args:
        experiment: the process, the network and the sampler.
        params: of the network, replicated.
        given: [N, H, W, C] uint8.
        strength: the share of the sampler's steps that are taken, from 0, nothing is changed, to 1, all is drawn anew.
        settings: `variants`, `seed` and `batch_size`.
    """
    sampler = experiment.sampler()
    num_steps = round(strength * sampler.num_steps)

    def draw(params: Any, given: jax.Array, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        return sampling.image_to_image(
            experiment.process, experiment.guided_fn(params, labels), x_0=images.from_uint8(given), num_steps=num_steps,
            keys=keys, clip=experiment.clip, sampler=sampler,
        )  # fmt: skip

    return _table(experiment, params, draw, [given], **settings)


def _table(
    experiment: Experiment, params: Any, draw: Callable, first: list[np.ndarray], *, variants: int, seed: int,
    batch_size: int,
) -> np.ndarray:  # fmt: skip
    given = first[0].repeat(variants, axis=0)  # [N * variants, H, W, C]
    inputs = experiment.inputs(seed, np.arange(len(given)))
    with progress_bar(len(given)) as bar:
        made = in_batches(map_images(draw), params, given, *inputs, batch_size=batch_size, bar=bar)
    return np.concatenate([np.stack(first, axis=1), made.reshape(-1, variants, *experiment.image_shape)], axis=1)
