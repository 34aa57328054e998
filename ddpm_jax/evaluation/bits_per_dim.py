"""Bits/dim and rate-distortion of a trained model (Ho et al. 2020, Tables 1 and 4, Figure 5), as tables on disk.

An image's numbers depend on the image and the seed alone. What was begun is continued, what is there is read.
"""

import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import data, images, likelihood, parallel, sampling
from ddpm_jax.paper import published
from ddpm_jax.runs import workdir
from ddpm_jax.runs.resumable import Rows
from ddpm_jax.runtime import files

FAST_TIMESTEPS = 20


class Task(NamedTuple):
    """Which images of a data set, under which model."""

    folder: Path  # of the tables
    loaded: workdir.Loaded
    source: data.Source
    indices: np.ndarray  # [N] of the images in the source, rising
    batch_size: int
    settings: dict[str, Any]  # that tell one table from another

    def path(self, metric: str, **more: int) -> Path:
        """Of a table, without its suffix; `more` are settings of this metric alone."""
        settings = self.settings | {"split": urllib.parse.quote(self.settings["split"], safe="")}
        name = "step{step}_{weights}_{split}_{num_images}_seed{seed}".format_map(settings)
        own = "".join(f"_{key}{value}" for key, value in more.items())
        return self.folder / f"{metric}_{name}{own}"


def make_task(
    folder: Path, loaded: workdir.Loaded, *, split: str, num_images: int | None, batch_size: int, seed: int
) -> Task:
    """Chooses the images.

    Args:
        folder: for the tables.
        loaded: the model.
        split: of the data set that it was trained on.
        num_images: how many, drawn by the seed; None: all.
        batch_size: images at a time.
        seed: also of the noise.

    Raises:
        ValueError: if there is no such split, or not that many images in it.
        FileNotFoundError: if the data set is not there.
    """
    config = loaded.experiment.config
    source = loaded.experiment.load_data(split)
    count = num_images or len(source)
    if not 2 <= count <= len(source):
        raise ValueError(f"--num_images={count} must be from 2 to the {len(source)} that split {split!r} has.")
    chosen = data.batch_indices(len(source), seed=seed, step=0, batch_size=count)
    settings = dict(
        data=config.data.name, split=split, num_images=count, seed=seed, step=loaded.step, weights=loaded.weights,
        num_timesteps=loaded.experiment.process.num_timesteps, clip=True,
    )  # fmt: skip
    return Task(folder, loaded, source, np.sort(chosen), min(batch_size, count), settings)


def bound(task: Task) -> dict[str, Any]:
    """All that is computed at every timestep: the terms of the bound, and the rate and distortion of Table 4."""
    process = task.loaded.experiment.process

    def terms(params: Any, x_0: jax.Array, keys: jax.Array) -> jax.Array:  # [B, 1 + 2 T]
        found = likelihood.bpd_loop(process, task.loaded.experiment.denoise_fn(params), x_0=x_0, keys=keys)
        return jnp.concatenate([found.prior[:, None], found.terms, found.mse], axis=1)

    return _table(task, task.path("bpd"), terms, width=1 + 2 * process.num_timesteps, summarize=_summarize)


def draw(task: Task, found: dict[str, Any]) -> Path:
    """Figure 5, of what `bound` found; returns its path."""
    from ddpm_jax.paper import plots

    path = task.path("rate_distortion")
    path = path.with_name(f"{path.name}.png")
    curves = found["by_t"]
    plots.rate_distortion(path, rate_bpd=np.array(curves["rate_bpd"]), rmse=np.array(curves["rmse"]))
    return path


def estimate(task: Task, *, num_timesteps: int | None = None) -> dict[str, Any]:
    """The bound's total, estimated from some timesteps an image: by default 20, or all where there are fewer.

    Raises:
        ValueError: if the process has not that many.
    """
    process = task.loaded.experiment.process
    count = num_timesteps or min(FAST_TIMESTEPS, process.num_timesteps)
    likelihood.strata(process.num_timesteps, count)  # raises what there is to raise

    def total(params: Any, x_0: jax.Array, keys: jax.Array) -> jax.Array:  # [B, 1]
        denoise_fn = task.loaded.experiment.denoise_fn(params)
        return likelihood.bpd_estimate(process, denoise_fn, x_0=x_0, keys=keys, num_timesteps=count)[:, None]

    def summarize(rows: np.ndarray) -> dict[str, Any]:
        return {"timesteps_per_image": count, "bits_per_dim": {"total": _as_json(rows[:, 0])}}

    return _table(task, task.path("bpd_fast", timesteps=count), total, width=1, summarize=summarize)


def _table(
    task: Task, path: Path, function: Callable, *, width: int, summarize: Callable[[np.ndarray], dict[str, Any]]
) -> dict[str, Any]:
    """The table at `<path>.json`: read if it is there, else computed from every image and written.

    Args:
        task: which images.
        path: without suffix.
        function: `(params, x_0 [B, H, W, C], keys [B]) -> [B, D]`, a row depending on its image and key alone.
        width: D.
        summarize: what the table says of all rows, [N, D] float32.
    """
    file = path.with_name(f"{path.name}.json")
    if file.is_file():
        print(f"From {file}, which is there already:")
        return json.loads(file.read_text())
    shape = (len(task.indices), width)
    rows = Rows(path.with_name(f"{path.name}.rows"), settings=task.settings, shape=shape, dtype=np.float32)
    mapped = parallel.pmap_batches(lambda params, pixels, keys: function(params, images.from_uint8(pixels), keys))
    params = parallel.replicate(task.loaded.params)

    def measure(numbers: np.ndarray) -> np.ndarray:  # [B, D]
        indices = task.indices[np.minimum(numbers, len(task.indices) - 1)]
        pixels, _ = task.source.read(indices)
        return mapped(params, pixels, sampling.image_keys(task.settings["seed"], indices))

    rows.fill(measure, batch_size=task.batch_size)
    found = {"settings": task.settings, **summarize(np.asarray(rows.array))}
    files.write_atomically(file, json.dumps(found, indent=1) + "\n")
    rows.remove()
    print(f"Written to {file}:")
    return found


def _as_json(values: np.ndarray) -> dict[str, float]:
    """The mean of [N], and its standard error."""
    return {name: float(value) for name, value in likelihood.mean_over_images(values)._asdict().items()}


def _summarize(bound: np.ndarray) -> dict[str, Any]:
    """Of [N, 1 + 2 T]: the sums of Eq. 5 in bits/dim, the rows of Table 4, and the curves of Figure 5."""
    num_timesteps = bound.shape[1] // 2
    prior, terms, mse = bound[:, 0], bound[:, 1 : 1 + num_timesteps], bound[:, 1 + num_timesteps :]
    rate = likelihood.progressive_rate(terms=terms, prior=prior)  # [N, T]
    rates, rmse = likelihood.mean_over_images(rate), likelihood.progressive_rmse(mse)
    rows = []
    for row in published.TABLE_4:
        steps = max(1, round(row.reverse_steps / published.TABLE_4[0].reverse_steps * num_timesteps))
        t = num_timesteps - steps
        rows.append(
            dict(
                reverse_steps=steps, rate_bpd=rates.mean[t], rate_standard_error=rates.standard_error[t],
                rmse=rmse.mean[t], rmse_standard_error=rmse.standard_error[t],
            )
        )  # fmt: skip
    return {
        "bits_per_dim": {
            "total": _as_json(rate[:, 0] + terms[:, 0]),
            "L_0": _as_json(terms[:, 0]),
            "L_1 + ... + L_{T-1}": _as_json(rate[:, 0] - prior),
            "L_T": _as_json(prior),
            "rate L_1 + ... + L_T": _as_json(rate[:, 0]),
        },
        "rate_distortion": rows,
        "by_t": {
            "terms_bpd": likelihood.mean_over_images(terms).mean.tolist(),
            "rate_bpd": rates.mean.tolist(),
            "rmse": rmse.mean.tolist(),
        },
    }


def tables(folder: Path) -> list[dict[str, Any]]:
    """The tables of `bound` that lie in a folder."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("bpd_step*.json"))]
