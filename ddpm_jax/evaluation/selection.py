"""Images of a data set under a model, and what is measured of each of them, as tables on disk.

A table that was begun is continued, one that is there is read. Every process calls these functions alike.
"""

import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import data, parallel, sampling
from ddpm_jax.evaluation import results
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runs.trained_model import WEIGHTS, TrainedModel, unsigned


class Selection(NamedTuple):
    """Images of a data set, under a model.

    Attributes:
        model: that gives them their likelihood.
        images: all of the split.
        indices: int [N], rising, of those that are measured.
        settings: JSON values that tell one table from another.
    """

    model: TrainedModel
    images: ImageSet
    indices: np.ndarray
    settings: dict[str, Any]

    def file(self, folder: Path, metric: str, **more: int) -> Path:
        """Returns the path of a table; `more` are settings of this metric alone."""
        settings = self.settings | {"split": urllib.parse.quote(self.settings["split"], safe="")}
        name = "step{step}_{weights}_{split}_{num_images}_seed{seed}".format_map(settings)
        own = "".join(f"_{key}{value}" for key, value in more.items())
        return folder / f"{metric}_{name}{own}.json"


def select_images(model: TrainedModel, images: ImageSet, *, split: str, num_images: int | None, seed: int) -> Selection:
    """Chooses images of a split at random.

    Args:
        model: that is measured.
        images: all of the split, from `image_sets.share_split`.
        split: its name.
        num_images: how many, drawn by the seed; None: all.
        seed: also of the noise.

    Raises:
        ValueError: if there are not that many.
    """
    count = num_images or len(images)
    if not 2 <= count <= len(images):
        raise ValueError(f"--num_images={count} must be from 2 to the {len(images)} that split {split!r} has.")
    indices = data.batch_indices(len(images), seed=seed, step=0, batch_size=count)
    settings = dict(
        data=model.experiment.config.data.name, split=split, num_images=count, seed=seed, step=model.step,
        weights=model.short_weights, num_timesteps=model.experiment.process.num_timesteps, clip=True,
    ) | {WEIGHTS: model.fingerprint}  # fmt: skip
    if model.experiment.condition_fn is not None:
        settings["labels"] = "of the images"
    return Selection(model, images, np.sort(indices), settings)


def measured_table(
    selection: Selection,
    file: Path | None,
    mapped: Callable,
    *,
    width: int,
    summarize: Callable[[np.ndarray], dict[str, Any]],
    batch_size: int,
) -> dict[str, Any]:
    """Reads the table if it is there, else computes it from every image, and writes it if it has a file.

    Args:
        selection: of the images.
        file: of the table; None: it is not kept.
        mapped: `(params, pixels [B, H, W, C], keys [B], report=...) -> [B, D]`, a row depending on its image and key
            alone; of a model with classes with the images' labels [B], too.
        width: D.
        summarize: makes the table of all rows, [N, D] float32.
        batch_size: images at a time.

    Raises:
        ValueError: if the file holds the table of another model.
        FloatingPointError: if the bound of an image is not finite.
    """
    model, settings = selection.model, selection.settings
    weights, or_unsigned = model.fingerprint, file is not None and model.owns(file)
    if table := parallel.agree(
        lambda: file and results.read_table(file, settings, weights=weights, or_unsigned=or_unsigned)
    ):
        print(f"From {file}, which is there already:")
        return table
    count, seed = len(selection.indices), settings["seed"]
    path = file and file.with_suffix(".rows")
    rows = ResumableArray(
        path, settings=settings, shape=(count, width), dtype=np.float32, or_unsigned=or_unsigned
    )  # fmt: skip
    params = parallel.replicate(model.params)

    def measure(numbers: np.ndarray) -> np.ndarray:  # [B, D]
        indices = selection.indices[np.minimum(numbers, count - 1)]
        arrays = selection.images.read(indices), sampling.image_keys(seed, indices)
        if model.experiment.condition_fn is not None:
            arrays += (selection.images.read_labels(indices),)
        values = mapped(params, *arrays, report=rows.report)
        if not np.isfinite(values).all():
            raise FloatingPointError("The bound of some images is not finite: the weights, or the schedule, overflow.")
        return values

    rows.fill(measure, batch_size=min(batch_size, count))

    def finish() -> dict[str, Any]:
        summary = summarize(np.asarray(rows.array))
        if file:
            table = results.write_table(file, settings, weights=weights, **summary)
        else:
            table = {"settings": unsigned(settings), **summary}
        rows.remove()
        return table

    table = parallel.agree(finish)
    if file:
        print(f"Written to {file}:")
    return table
