"""Bits/dim and rate-distortion of a trained model (Ho et al. 2020, Tables 1 and 4, Figure 5), as tables on disk.

A model with classes is told that of each image: the bound is then that of log p(x_0 | class), never guided.

An image's numbers depend on the image and the seed alone. A table that was begun is continued, one that is there is
read. Every process calls these functions alike.
"""

import functools
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import data, images, likelihood, parallel, sampling
from ddpm_jax.evaluation import results
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.results import Score
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runs.trained_model import WEIGHTS, TrainedModel, unsigned
from ddpm_jax.runtime import foreign_files

_ROW = ("reverse_steps", "rate_bpd", "rate_standard_error", "rmse", "rmse_standard_error")  # of rate_distortion
FAST_TIMESTEPS = 20
_TENTHS = range(10, 0, -1)  # of the reverse steps: the rows of Table 4


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


def measure_terms(selection: Selection, folder: Path | None, *, batch_size: int) -> list[Score]:
    """Measures the bound at every timestep: its total, its terms, and the rate and distortion of Table 4.

    Returns:
        The scores `bpd`, the total in bits/dim, and `rd`, the rate in bits/dim, both with the whole table.
    """
    experiment = selection.model.experiment
    file = folder and selection.file(folder, "bpd")
    table = measured_table(
        selection, file, _map_terms(experiment), width=1 + 2 * experiment.process.num_timesteps, summarize=_summarize,
        batch_size=batch_size,
    )  # fmt: skip
    sums, more = table["bits_per_dim"], (table, file and str(file))
    total, rate = sums["total"], sums["rate L_1 + ... + L_T"]
    return [
        Score("bpd", "bits/dim", total["mean"], total["standard_error"], "standard error", *more),
        Score("rd", "rate, bits/dim", rate["mean"], rate["standard_error"], "standard error", *more),
    ]


def estimate_total(
    selection: Selection, folder: Path | None, *, num_timesteps: int | None, batch_size: int
) -> list[Score]:
    """Estimates the bound's total from some timesteps an image: by default 20, or all where there are fewer.

    Raises:
        ValueError: if the process has not that many.
    """
    experiment = selection.model.experiment
    count = num_timesteps or min(FAST_TIMESTEPS, experiment.process.num_timesteps)
    likelihood.strata(experiment.process.num_timesteps, count)  # raises what there is to raise

    def summarize(rows: np.ndarray) -> dict[str, Any]:
        return {"timesteps_per_image": count, "bits_per_dim": {"total": _as_json(rows[:, 0])}}

    file = folder and selection.file(folder, "bpd_fast", timesteps=count)
    table = measured_table(
        selection, file, _map_estimate(experiment, count), width=1, summarize=summarize, batch_size=batch_size
    )
    total = table["bits_per_dim"]["total"]
    more = (table, file and str(file))
    return [Score("bpd_fast", "bits/dim, estimated", total["mean"], total["standard_error"], "standard error", *more)]


@functools.lru_cache(maxsize=4)
def _map_terms(experiment: Experiment) -> Callable:
    """Maps the bound, given pixels [B, H, W, C], keys [B] and, of a model with classes, labels [B]."""

    def chain_of(params: Any) -> sampling.Chain:
        def with_labels(labels: jax.Array | None) -> sampling.Chain:
            return likelihood.bpd_chain(experiment.process, experiment.denoise_fn(params, labels))

        def run(
            carried: Any, begin: Any, end: Any, pixels: jax.Array, keys: jax.Array, labels: jax.Array | None = None
        ) -> Any:
            return with_labels(labels).run(carried, begin, end, images.from_uint8(pixels), keys)

        chain = with_labels(None)
        return sampling.Chain(
            chain.num_steps,
            init=lambda pixels, keys, labels=None: chain.init(images.from_uint8(pixels), keys),
            run=run,
            read=lambda carried: as_rows(chain.read(carried)),
        )

    def as_rows(bound: likelihood.Bound) -> jax.Array:  # [B, 1 + 2 T]
        return jnp.concatenate([bound.prior[:, None], bound.terms, bound.mse], axis=1)

    return parallel.map_chain(chain_of, name="the bound")


@functools.lru_cache(maxsize=4)
def _map_estimate(experiment: Experiment, num_timesteps: int) -> Callable:
    def total(params: Any, pixels: jax.Array, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:  # [B, 1]
        x_0, denoise_fn = images.from_uint8(pixels), experiment.denoise_fn(params, labels)
        return likelihood.bpd_estimate(experiment.process, denoise_fn, x_0=x_0, keys=keys, num_timesteps=num_timesteps)[
            :, None
        ]

    return parallel.map_batches(total)


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


def _as_json(values: np.ndarray) -> dict[str, float]:
    """Returns the mean of [N], and its standard error."""
    return {name: float(value) for name, value in likelihood.mean_over_images(values)._asdict().items()}


def _summarize(rows: np.ndarray) -> dict[str, Any]:
    """Sums [N, 1 + 2 T] as Eq. 5 does, in bits/dim, and returns the rows of Table 4 and the curves of Figure 5."""
    num_timesteps = rows.shape[1] // 2
    prior, terms, mse = rows[:, 0], rows[:, 1 : 1 + num_timesteps], rows[:, 1 + num_timesteps :]
    rate = likelihood.progressive_rate(terms=terms, prior=prior)  # [N, T]
    rates, rmse = likelihood.mean_over_images(rate), likelihood.progressive_rmse(mse)
    rate_distortion = []
    for tenths in _TENTHS:
        steps = max(1, round(tenths / 10 * num_timesteps))
        t = num_timesteps - steps
        numbers = steps, rates.mean[t], rates.standard_error[t], rmse.mean[t], rmse.standard_error[t]
        rate_distortion.append(dict(zip(_ROW, numbers, strict=True)))
    return {
        "bits_per_dim": {
            "total": _as_json(rate[:, 0] + terms[:, 0]),
            "L_0": _as_json(terms[:, 0]),
            "L_1 + ... + L_{T-1}": _as_json(rate[:, 0] - prior),
            "L_T": _as_json(prior),
            "rate L_1 + ... + L_T": _as_json(rate[:, 0]),
        },
        "rate_distortion": rate_distortion,
        "by_t": {
            "terms_bpd": likelihood.mean_over_images(terms).mean.tolist(),
            "rate_bpd": rates.mean.tolist(),
            "rmse": rmse.mean.tolist(),
        },
    }


def read_tables(folder: Path) -> list[dict[str, Any]]:
    """Reads the tables of `measure_terms` that lie in a folder.

    Raises:
        ValueError: if one is damaged, or no such table.
    """
    tables = []
    for path in sorted(folder.glob("bpd_step*.json")):
        table = results.read_json(path, "is no table of the bound")
        with foreign_files.reading(path, "is no table of the bound"):
            step, count, _, _ = (table["settings"][name] for name in ("step", "num_images", "data", "split"))
            numbers = [row[name] for row in table["rate_distortion"] for name in _ROW]
            if not all(isinstance(number, (int, float)) for number in (step, count, *numbers)):
                raise ValueError("a number is of the wrong type")
        tables.append(table)
    return tables
