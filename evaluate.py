"""Measures a trained model, given its work folder: bits/dim (Ho et al. 2020, Table 1) and rate-distortion (Table 4).

    python evaluate.py --workdir=runs/cifar10 --metrics=bpd,rd --split=test

Writes what it prints, and more, to WORKDIR/tables, named by the settings. An image's numbers depend on the image and
the seed alone. Run again, it continues where it stopped.
"""

import json
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from ddpm_jax import data, images, likelihood, parallel, sampling, workdir
from ddpm_jax.paper import published
from ddpm_jax.resumable import Rows, Stopped

_FAST_TIMESTEPS = 20

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run of train.py.")
_METRICS = flags.DEFINE_list(
    "metrics", ["bpd"],
    "bpd: the bound on the negative log-likelihood, at every timestep; rd: rate-distortion, of the same pass; "
    "bpd_fast: an unbiased estimate of the bound from a few timesteps an image.",
)  # fmt: skip
_SPLIT = flags.DEFINE_string("split", "test", "Of the data set.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "How many, at random. Default: all.", lower_bound=2)
_NUM_TIMESTEPS = flags.DEFINE_integer(
    "num_timesteps", None, f"Of bpd_fast, an image. Default: {_FAST_TIMESTEPS}.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time. Default: sample.py's.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Another seed, other noise and, of --num_images, others.", lower_bound=0)
_STEP = flags.DEFINE_integer("step", None, "Training step of the checkpoint. Default: the newest.")
_EMA = flags.DEFINE_bool("ema", None, "Use the averaged weights. Default: the config's.")
flags.mark_flag_as_required("workdir")


class Task(NamedTuple):
    """What the flags ask for."""

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
        return Path(_WORKDIR.value) / workdir.TABLES / f"{metric}_{name}{own}"


def make_task() -> Task:
    """Loads what the flags name.

    Raises:
        ValueError: if they do not fit each other, the run or the data set.
        FileNotFoundError: if the run or its data set is not there.
    """
    if unknown := [metric for metric in _METRICS.value if metric not in METRICS]:
        raise ValueError(f"Unknown metric {unknown[0]!r} in --metrics; choose from {', '.join(METRICS)}.")
    loaded = workdir.load(_WORKDIR.value, step=_STEP.value, ema=_EMA.value)
    config = loaded.experiment.config
    split = _SPLIT.value
    source = loaded.experiment.load_data(split)
    num_images = _NUM_IMAGES.value or len(source)
    if not 2 <= num_images <= len(source):
        raise ValueError(f"--num_images={num_images} must be from 2 to the {len(source)} that split {split!r} has.")
    chosen = data.batch_indices(len(source), seed=_SEED.value, step=0, batch_size=num_images)
    settings = dict(
        data=config.data.name, split=split, num_images=num_images, seed=_SEED.value, step=loaded.step,
        weights=loaded.weights, num_timesteps=loaded.experiment.process.num_timesteps, clip=True,
    )  # fmt: skip
    batch_size = min(_BATCH_SIZE.value or config.sample.batch_size, num_images)
    return Task(loaded, source, np.sort(chosen), batch_size, settings)


def table(
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
    workdir.write_atomically(file, json.dumps(found, indent=1) + "\n")
    rows.remove()
    print(f"Written to {file}:")
    return found


def as_json(values: np.ndarray) -> dict[str, float]:
    """The mean of [N], and its standard error."""
    return {name: float(value) for name, value in likelihood.mean_over_images(values)._asdict().items()}


def bound_table(task: Task) -> dict[str, Any]:
    """All that is computed at every timestep: the terms of the bound, and the rate and distortion of Table 4."""
    process = task.loaded.experiment.process

    def bound(params: Any, x_0: jax.Array, keys: jax.Array) -> jax.Array:  # [B, 1 + 2 T]
        found = likelihood.bpd_loop(process, task.loaded.experiment.denoise_fn(params), x_0=x_0, keys=keys)
        return jnp.concatenate([found.prior[:, None], found.terms, found.mse], axis=1)

    return table(task, task.path("bpd"), bound, width=1 + 2 * process.num_timesteps, summarize=summarize_bound)


def summarize_bound(bound: np.ndarray) -> dict[str, Any]:
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
            "total": as_json(rate[:, 0] + terms[:, 0]),
            "L_0": as_json(terms[:, 0]),
            "L_1 + ... + L_{T-1}": as_json(rate[:, 0] - prior),
            "L_T": as_json(prior),
            "rate L_1 + ... + L_T": as_json(rate[:, 0]),
        },
        "rate_distortion": rows,
        "by_t": {
            "terms_bpd": likelihood.mean_over_images(terms).mean.tolist(),
            "rate_bpd": rates.mean.tolist(),
            "rmse": rmse.mean.tolist(),
        },
    }


def bpd(task: Task) -> None:
    """Table 1's NLL, and the sums that it consists of."""
    sums = bound_table(task)["bits_per_dim"]
    print("Bound on the negative log-likelihood   bits/dim")
    for name, value in sums.items():
        print(f"  {name:<24} {value['mean']:14.7f} ± {value['standard_error']:.7f}")


def rate_distortion(task: Task) -> None:
    """Table 4 and Figure 5."""
    from ddpm_jax import plots

    found = bound_table(task)
    print("Progressive coding (Table 4; the paper's are of CIFAR-10)")
    print("  reverse steps     rate, bits/dim              paper     RMSE, 0-255          paper")
    for ours, theirs in zip(found["rate_distortion"], published.TABLE_4, strict=True):
        rate = f"{ours['rate_bpd']:.5f} ± {ours['rate_standard_error']:.5f}"
        rmse = f"{ours['rmse']:.3f} ± {ours['rmse_standard_error']:.3f}"
        print(f"  {ours['reverse_steps']:<17} {rate:<25} {theirs.rate_bpd:8.5f}     {rmse:<18} {theirs.rmse:7.3f}")
    sums, last = found["bits_per_dim"], found["rate_distortion"][0]
    print(
        f"  rate {sums['rate L_1 + ... + L_T']['mean']:.2f} + distortion {sums['L_0']['mean']:.2f} bits/dim, RMSE "
        f"{last['rmse']:.2f} (paper: {published.RATE_BPD} + {published.DISTORTION_BPD}, {published.DISTORTION_RMSE})"
    )
    picture = task.path("rate_distortion").with_name(task.path("rate_distortion").name + ".png")
    curves = found["by_t"]
    plots.rate_distortion(picture, rate_bpd=np.array(curves["rate_bpd"]), rmse=np.array(curves["rmse"]))
    print(f"Figure 5: {picture}")


def bpd_fast(task: Task) -> None:
    """The total of `bpd`, estimated."""
    process = task.loaded.experiment.process
    count = _NUM_TIMESTEPS.value or min(_FAST_TIMESTEPS, process.num_timesteps)
    likelihood.strata(process.num_timesteps, count)  # raises what there is to raise

    def estimate(params: Any, x_0: jax.Array, keys: jax.Array) -> jax.Array:  # [B, 1]
        denoise_fn = task.loaded.experiment.denoise_fn(params)
        return likelihood.bpd_estimate(process, denoise_fn, x_0=x_0, keys=keys, num_timesteps=count)[:, None]

    def summarize(rows: np.ndarray) -> dict[str, Any]:
        return {"timesteps_per_image": count, "bits_per_dim": {"total": as_json(rows[:, 0])}}

    path = task.path("bpd_fast", timesteps=count)
    total = table(task, path, estimate, width=1, summarize=summarize)["bits_per_dim"]["total"]
    print(f"Bound, estimated from {count} timesteps an image   bits/dim")
    print(f"  {'total':<24} {total['mean']:14.7f} ± {total['standard_error']:.7f}")


METRICS: dict[str, Callable[[Task], None]] = {"bpd": bpd, "rd": rate_distortion, "bpd_fast": bpd_fast}


def main(argv: list[str]) -> int:
    """Runs the command and says what went wrong in a sentence."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    logging.set_verbosity(logging.WARNING)
    try:
        task = make_task()
        print(", ".join(f"{name} {value}" for name, value in task.settings.items()), parallel.describe(), sep="; ")
        for metric in _METRICS.value:
            METRICS[metric](task)
    except Stopped as stopped:
        print(stopped)
        return stopped.exit_code
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    app.run(main)
