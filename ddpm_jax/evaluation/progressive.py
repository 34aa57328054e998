"""Quality of the predicted x_0 against reverse steps (Ho et al. 2020, Figure 10)."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ddpm_jax import parallel
from ddpm_jax.evaluation import image_sets, quality, results
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.quality import FeatureSpace
from ddpm_jax.evaluation.results import Score
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runs.sample_files import map_chain, sample_spec
from ddpm_jax.runs.trained_model import TrainedModel

KINDS = {"progressive": "inception", "progressive_classifier": "classifier"}  # the features of each metric
_POINTS = 11  # reverse steps 1, 101, ..., T of T = 1000


def evenly_spaced(num_timesteps: int, count: int) -> list[int]:
    """Returns up to `count` different timesteps, from T - 1 to 0."""
    return sorted({round(t) for t in np.linspace(0, num_timesteps - 1, count)}, reverse=True)


@functools.lru_cache(maxsize=4)
def map_predictions(experiment: Experiment, timesteps: tuple[int, ...]) -> Callable[..., np.ndarray]:
    """Returns `(params, *experiment.inputs) -> uint8 [B, K, H, W, C]`: the x_0 predicted at some timesteps."""
    return map_chain(lambda params: experiment.chain(params, timesteps), lambda _, predicted: predicted)


def measure_predictions(
    metric: str,
    model: TrainedModel,
    space: FeatureSpace,
    folder: Path,
    *,
    num_samples: int,
    batch_size: int,
    seed: int,
) -> list[Score]:
    """Measures the x_0 predicted at some timesteps; the table is read if it is there, else computed and written.

    Args:
        metric: its name, of `KINDS`.
        model: that predicts.
        space: the features, and the reference.
        folder: of the table.
        num_samples: that each point is of.
        batch_size: images at a time.
        seed: of the samples.

    Returns:
        The distance at the last reverse step; its table has a row for each number of reverse steps: `reverse_steps`,
        `distance` to the reference, `inception_score` and its `deviation`.

    Raises:
        ValueError: if the table there is one of another model, or the sampler is another than Algorithm 2.
        signals.Stopped: if a signal requested it.
    """
    model.experiment.check_whole_chain(metric)
    spec = sample_spec(model, seed=seed)
    settings = quality.score_settings(space, spec.metadata() | {"count": num_samples})
    file = folder / f"progressive_{space.extractor.name.partition(':')[0]}_{spec.name}_{num_samples}.json"
    weights, or_unsigned = model.fingerprint, model.owns(file)
    if table := parallel.agree(lambda: results.read_table(file, settings, weights=weights, or_unsigned=or_unsigned)):
        print(f"From {file}, which is there already:")
    else:
        timesteps = evenly_spaced(model.experiment.process.num_timesteps, _POINTS)
        predicted = _draw(model, file.with_suffix(".samples"), timesteps, num_samples, batch_size, seed)
        rows = [
            {"reverse_steps": model.experiment.process.num_timesteps - t}
            | _measure(space, predicted, k, file.with_name(f"{file.stem}_t{t}.rows"), batch_size=batch_size)
            for k, t in enumerate(timesteps)
        ]
        table = parallel.agree(lambda: results.write_table(file, settings, weights=weights, rows=rows))
        predicted.remove()
    return [Score(metric, "distance of the predicted x_0", table["rows"][-1]["distance"], table=table, file=str(file))]


def _draw(
    model: TrainedModel, path: Path, timesteps: Sequence[int], num_samples: int, batch_size: int, seed: int
) -> ResumableArray:
    """Draws the x_0 predicted at K timesteps: rows uint8 [N, K, H, W, C]."""
    settings = sample_spec(model, seed=seed).metadata() | {"timesteps": list(timesteps)}
    shape = (num_samples, len(timesteps), *model.experiment.image_shape)
    rows = ResumableArray(path, settings=settings, shape=shape, dtype=np.uint8, or_unsigned=model.owns(path))
    run, params = map_predictions(model.experiment, tuple(timesteps)), parallel.replicate(model.sampling_params)
    rows.fill(
        lambda numbers: run(params, *model.experiment.inputs(seed, numbers), report=rows.report),
        batch_size=min(batch_size, num_samples),
    )
    return rows


def _measure(
    space: FeatureSpace, predicted: ResumableArray, k: int, path: Path, *, batch_size: int
) -> dict[str, float]:
    """Measures the predictions [N, H, W, C] uint8 of one timestep."""
    metadata = {"images": "predicted x_0"}
    frame: ImageSet = image_sets.share(lambda: image_sets.from_array(predicted.array[:, k], metadata))
    rows = quality.features(space.extractor, frame, path, batch_size=batch_size)
    distance, score = quality.compute_scores(("fid", "is"), space, frame, rows)
    rows.remove()
    return {"distance": distance.value, "inception_score": score.value, "deviation": score.error}
