"""Bits/dim and rate-distortion of a trained model (Ho et al. 2020, Tables 1 and 4, Figure 5), as tables on disk.

A model with classes is told that of each image: the bound is then that of log p(x_0 | class), never guided.

An image's numbers depend on the image and the seed alone. Every process calls these functions alike.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import images, likelihood, parallel, sampling
from ddpm_jax.diffusion import DenoiseFn
from ddpm_jax.evaluation import results
from ddpm_jax.evaluation.results import Score
from ddpm_jax.evaluation.selection import Selection, measured_table
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runtime import foreign_files

_ROW = ("reverse_steps", "rate_bpd", "rate_standard_error", "rmse", "rmse_standard_error")  # of rate_distortion
FAST_TIMESTEPS = 20
ODE_STEPS = 100
_TENTHS = range(10, 0, -1)  # of the reverse steps: the rows of Table 4


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


def estimate_total(selection: Selection, folder: Path | None, *, num_timesteps: int | None, batch_size: int) -> Score:
    """Estimates the bound's total from some timesteps an image: by default 20, or all where there are fewer.

    Raises:
        ValueError: if the process has not that many.
    """
    process = selection.model.experiment.process
    count = num_timesteps or min(FAST_TIMESTEPS, process.num_timesteps)
    likelihood.strata(process.num_timesteps, count)  # raises what there is to raise
    return _measure_total(
        selection, folder and selection.file(folder, "bpd_fast", timesteps=count), "bpd_fast", "bits/dim, estimated",
        _map_estimate(selection.model.experiment, count), {"timesteps_per_image": count}, batch_size=batch_size,
    )  # fmt: skip


def measure_ode(selection: Selection, folder: Path | None, *, num_steps: int | None, batch_size: int) -> Score:
    """Measures the negative log-likelihood under the probability-flow ODE, with one of Hutchinson's probes an image.

    It is solved in 100 steps, or one fewer than there are timesteps, unless their number is given.

    Raises:
        ValueError: if there cannot be so many steps.
    """
    count = num_steps or min(ODE_STEPS, selection.model.experiment.process.num_timesteps - 1)
    return _measure_total(
        selection, folder and selection.file(folder, "bpd_ode", steps=count), "bpd_ode", "bits/dim, ODE",
        _map_ode(selection.model.experiment, count), {"solver_steps": count}, batch_size=batch_size,
    )  # fmt: skip


def _measure_total(
    selection: Selection,
    file: Path | None,
    metric: str,
    name: str,
    mapped: Callable,
    counts: dict[str, int],
    *,
    batch_size: int,
) -> Score:
    """Measures one number an image, whose mean is the score; its table also has the `counts`."""

    def summarize(rows: np.ndarray) -> dict[str, Any]:
        return counts | {"bits_per_dim": {"total": _as_json(rows[:, 0])}}

    table = measured_table(selection, file, mapped, width=1, summarize=summarize, batch_size=batch_size)
    total = table["bits_per_dim"]["total"]
    return Score(metric, name, total["mean"], total["standard_error"], "standard error", table, file and str(file))


@functools.lru_cache(maxsize=4)
def _map_terms(experiment: Experiment) -> Callable:
    def as_rows(bound: likelihood.Bound) -> jax.Array:  # [B, 1 + 2 T]
        return jnp.concatenate([bound.prior[:, None], bound.terms, bound.mse], axis=1)

    make_chain = functools.partial(likelihood.bpd_chain, experiment.process)
    return _map_chain(experiment, make_chain, as_rows, name="the bound")


@functools.lru_cache(maxsize=4)
def _map_ode(experiment: Experiment, num_steps: int) -> Callable:
    make_chain = functools.partial(likelihood.ode_bpd_chain, experiment.process, num_steps=num_steps)
    return _map_chain(experiment, make_chain, lambda bpd: bpd, name="the likelihood")


def _map_chain(
    experiment: Experiment,
    make_chain: Callable[[DenoiseFn], sampling.Chain],
    as_rows: Callable[[Any], jax.Array],
    *,
    name: str,
) -> Callable:
    """Maps a chain of the likelihood, given pixels [B, H, W, C], keys [B] and, of a model with classes, labels [B]."""

    def chain_of(params: Any) -> sampling.Chain:
        def with_labels(labels: jax.Array | None) -> sampling.Chain:
            return make_chain(experiment.denoise_fn(params, labels))

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

    return parallel.map_chain(chain_of, name=name)


@functools.lru_cache(maxsize=4)
def _map_estimate(experiment: Experiment, num_timesteps: int) -> Callable:
    def total(params: Any, pixels: jax.Array, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:  # [B, 1]
        x_0, denoise_fn = images.from_uint8(pixels), experiment.denoise_fn(params, labels)
        return likelihood.bpd_estimate(experiment.process, denoise_fn, x_0=x_0, keys=keys, num_timesteps=num_timesteps)[
            :, None
        ]

    return parallel.map_batches(total)


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
