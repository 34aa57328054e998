"""Scores during training: what evaluate.py measures, from fewer samples and nothing on disk."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ddpm_jax import images, likelihood, parallel, sampling
from ddpm_jax.evaluation import bound, image_sets, quality
from ddpm_jax.metrics import inception
from ddpm_jax.runs.experiment import Experiment

_OF_SAMPLES = (*quality.INCEPTION, *quality.CLASSIFIER)
METRICS = (*_OF_SAMPLES, "bpd_fast")


def make(made: Experiment, metrics: Sequence[str], *, num_images: int) -> Callable[[Any], dict[str, float]]:
    """Prepares all that can go wrong, the extractors and the reference among it, before training begins.

    Args:
        made: what is trained; batch size and seed are those of its `sample` settings.
        metrics: some of `METRICS`.
        num_images: that are drawn, or, for bpd_fast, taken from the test split.

    Returns:
        `params -> {name: score}`; the parameters replicated.

    Raises:
        ValueError: for an unknown metric, a data set without labels or test split.
        OSError: if Inception's weights are needed and not there.
    """
    if unknown := [metric for metric in metrics if metric not in METRICS]:
        raise ValueError(f"Unknown metric {unknown[0]!r} in train.eval_metrics; choose from {', '.join(METRICS)}.")
    parts: list[Callable[[Any, np.ndarray], dict[str, float]]] = []
    training_set = image_sets.training_set(made)
    for names in (quality.INCEPTION, tuple(quality.CLASSIFIER)):
        if chosen := [metric for metric in metrics if metric in names]:
            parts.append(_scores(made, chosen, *training_set))
    bound_of = _bound(made, num_images) if "bpd_fast" in metrics else None
    config = made.config.sample
    sample = parallel.pmap_batches(lambda params, keys: images.to_uint8(made.sample(params, keys)))

    def measure(params: Any) -> dict[str, float]:
        found = bound_of(params) if bound_of else {}
        if parts:
            batches = np.array_split(np.arange(num_images), -(-num_images // config.batch_size))
            drawn = [np.asarray(sample(params, sampling.image_keys(config.seed, indices))) for indices in batches]
            for part in parts:
                found |= part(np.concatenate(drawn))
        return found

    return measure


def _scores(made: Experiment, metrics: Sequence[str], source: Any, name: str) -> Callable[[np.ndarray], dict]:
    is_classifier = metrics[0] in quality.CLASSIFIER
    extractor = quality.classifier_extractor(source, name) if is_classifier else inception.extractor()
    size = made.config.sample.batch_size
    reference = quality.reference_of(extractor, image_sets.of_source(source, name), batch_size=size)
    run, params = parallel.pmap_batches(extractor.apply), parallel.replicate(extractor.params)

    def score(drawn: np.ndarray) -> dict[str, float]:
        pieces = [run(params, drawn[i : i + size]) for i in range(0, len(drawn), size)]
        rows = np.concatenate([np.concatenate([piece.pool, piece.logits], axis=1) for piece in pieces])
        samples = image_sets.of_array(drawn, {"images": "drawn"})
        return {score.name: score.value for score in quality.measure(metrics, extractor, samples, reference, rows)}

    return score


def _bound(made: Experiment, num_images: int) -> Callable[[Any], dict[str, float]]:
    """Of the same test images, timesteps and noise at each time, so that what changes is the model."""
    source, config = made.load_data("test"), made.config.sample
    indices = np.arange(min(num_images, len(source)))
    count = min(bound.FAST_TIMESTEPS, made.process.num_timesteps)

    def estimate(params: Any, pixels: jax.Array, keys: jax.Array) -> jax.Array:
        x_0 = images.from_uint8(pixels)
        return likelihood.bpd_estimate(made.process, made.denoise_fn(params), x_0=x_0, keys=keys, num_timesteps=count)

    run = parallel.pmap_batches(estimate)

    def measure(params: Any) -> dict[str, float]:
        pieces = np.array_split(indices, -(-len(indices) // config.batch_size))
        totals = [run(params, source.read(piece)[0], sampling.image_keys(config.seed, piece)) for piece in pieces]
        return {"bpd_fast": float(np.concatenate(totals).mean())}

    return measure
