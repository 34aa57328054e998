"""Quality of the predicted x_0 against reverse steps (Ho et al. 2020, Figure 10)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax import parallel, sampling
from ddpm_jax.evaluation import image_sets, quality
from ddpm_jax.evaluation.quality import Reference
from ddpm_jax.metrics.features import Extractor
from ddpm_jax.paper import generation
from ddpm_jax.runs import workdir
from ddpm_jax.runs.resumable import Rows
from ddpm_jax.runtime import files

_POINTS = 11  # reverse steps 1, 101, ..., T of T = 1000


def table(
    loaded: workdir.Loaded,
    folder: Path,
    extractor: Extractor,
    reference: Reference,
    *,
    num_samples: int,
    batch_size: int,
    seed: int,
) -> tuple[list[dict[str, float]], Path]:
    """The table and the figure, from disk or, continued where it stopped, computed.

    Args:
        loaded: the model.
        folder: for the table and the figure.
        extractor: of the features.
        reference: to compare with.
        num_samples: that each point is of.
        batch_size: images at a time.
        seed: of the samples.

    Returns:
        A row for each number of reverse steps: `reverse_steps`, `distance` to the reference, `inception_score` and
        its `deviation`; and the path of the figure.

    Raises:
        signals.Stopped: if a signal asked for it.
    """
    from ddpm_jax.paper import plots

    settings = quality.settings_of(extractor, image_sets.about_drawn(loaded, seed) | {"count": num_samples}, reference)
    kind = extractor.name.partition(":")[0]
    name = f"progressive_{kind}_step{loaded.step}_{loaded.weights}_seed{seed}_{num_samples}"
    path = folder / f"{name}.json"
    if path.is_file() and (found := json.loads(path.read_text()))["settings"] == settings:
        print(f"From {path}, which is there already:")
    else:
        timesteps, predicted = _draw(
            loaded, folder / f"{name}.samples", num_samples=num_samples, batch_size=batch_size, seed=seed
        )
        rows = [
            {"reverse_steps": loaded.experiment.process.num_timesteps - t}
            | _measure(extractor, reference, predicted.array[:, k], folder / f"{name}_t{t}", batch_size=batch_size)
            for k, t in enumerate(timesteps)
        ]
        found = {"settings": settings, "rows": rows}
        files.write_atomically(path, json.dumps(found, indent=1) + "\n")
        predicted.remove()
    picture = path.with_suffix(".png")
    plots.quality_by_step(picture, found["rows"], kind=kind, num_samples=num_samples)
    return found["rows"], picture


def _draw(
    loaded: workdir.Loaded, path: Path, *, num_samples: int, batch_size: int, seed: int
) -> tuple[list[int], Rows]:
    """The K timesteps, falling, and the x_0 predicted at each of them: rows uint8 [N, K, H, W, C]."""
    made = loaded.experiment
    timesteps = generation.evenly(made.process.num_timesteps, _POINTS)
    settings = dict(step=loaded.step, weights=loaded.weights, seed=seed, timesteps=timesteps)
    rows = Rows(path, settings=settings, shape=(num_samples, len(timesteps), *made.image_shape), dtype=np.uint8)
    run, params = parallel.pmap_batches(generation.predictions(made, timesteps)), parallel.replicate(loaded.params)
    rows.fill(lambda numbers: run(params, sampling.image_keys(seed, numbers)), batch_size=min(batch_size, num_samples))
    return timesteps, rows


def _measure(
    extractor: Extractor, reference: Reference, predicted: np.ndarray, path: Path, *, batch_size: int
) -> dict[str, Any]:
    """Of the predictions [N, H, W, C] uint8 of one timestep."""
    frame = image_sets.of_array(predicted, {"images": "predicted x_0"})
    rows = quality.features(extractor, frame, path.with_suffix(".rows"), batch_size=batch_size)
    distance, score = quality.measure(("fid", "is"), extractor, frame, reference, rows.array)
    rows.remove()
    return {"distance": distance.value, "inception_score": score.value, "deviation": score.error}
