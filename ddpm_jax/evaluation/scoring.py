"""`evaluate`: measures a trained model, or any images. The command line, training and the paper's tables call it."""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddpm_jax import parallel
from ddpm_jax.evaluation import bits_per_dim, image_sets, progressive, quality, results
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.quality import FeatureSpace
from ddpm_jax.evaluation.results import Score
from ddpm_jax.evaluation.selection import Selection, select_images
from ddpm_jax.runs import config
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.trained_model import TrainedModel

PAPER_SAMPLES = 50_000

OF_SAMPLES = (*quality.INCEPTION, *quality.CLASSIFIER, quality.LABELS)
OF_PREDICTIONS = tuple(progressive.KINDS)
OF_LIKELIHOOD = ("bpd", "bpd_fast", "bpd_ode", "rd")
METRICS = (*OF_SAMPLES, *OF_PREDICTIONS, *OF_LIKELIHOOD)
DURING_TRAINING = (*OF_SAMPLES, "bpd_fast")


def evaluate(
    model: TrainedModel | None,
    metrics: Sequence[str],
    *,
    samples: ImageSet | None = None,
    reference: ImageSet | None = None,
    spaces: Mapping[str, FeatureSpace] | None = None,
    images: ImageSet | None = None,
    split: str = "test",
    num_samples: int = PAPER_SAMPLES,
    num_images: int | None = None,
    num_timesteps: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    folder: str | os.PathLike | None = None,
) -> list[Score]:
    """Measures a trained model, or given samples, with the metrics that are named.

    With several processes all call it alike, and all get the scores.

    Args:
        model: from `ddpm_jax.load`; None: `samples` are measured, and no metric may need a model.
        metrics: some of `METRICS`.
        samples: images to score; None: drawn from the model, into memory.
        reference: images to compare samples with; None: those that the model was trained on.
        spaces: extractors with their references by kind, 'inception' or 'classifier', from `open_space`; None: made
            from `reference` as they are needed.
        images: for the likelihood; None: those of `split`.
        split: of the model's data set, for the likelihood.
        num_samples: to be drawn.
        num_images: of the split, at random; None: all.
        num_timesteps: of bpd_fast, an image; None: 20, or all where there are fewer. Of bpd_ode, the solver's steps;
            None: 100, or one fewer than there are timesteps.
        batch_size: images at a time; None: that of the model's config, or 64.
        seed: of samples and noise, and of the choice of `num_images`.
        folder: for tables and metrics.json, which are read, continued and written; None: nothing is kept.

    Returns:
        The scores, in the order of the metrics within likelihood, samples and predictions; `rd` and the metrics of
        predictions have a table.

    Raises:
        ValueError: for an unknown metric, one that lacks its model, reference or folder, or data that do not fit.
        OSError: if Inception's weights or the data are needed and not there.
        signals.Stopped: if a signal requested it.
    """
    check_metrics(metrics, METRICS, name="metrics")
    folder = Path(folder) if folder else None
    needs_model = [metric for metric in metrics if metric in OF_PREDICTIONS + OF_LIKELIHOOD]
    if model is None and (needs_model or samples is None):
        raise ValueError(f"{', '.join(needs_model or metrics)} measures a model, and there is none.")
    if samples is None:
        check_classes(metrics, model.experiment)
    batch_size = batch_size or (model.experiment.config.sample.batch_size if model else 64)
    scores: list[Score] = []
    if chosen := [metric for metric in metrics if metric in OF_LIKELIHOOD]:
        images = image_sets.share_split(model.experiment, split) if images is None else images
        selection = select_images(model, images, split=split, num_images=num_images, seed=seed)
        scores += _measure_likelihood(
            selection, chosen, num_timesteps=num_timesteps, batch_size=batch_size, folder=folder
        )
    for kind, names in quality.KINDS.items():
        if chosen := [metric for metric in metrics if metric in names]:
            space = spaces[kind] if spaces else open_space(
                kind, chosen, experiment=model and model.experiment, reference=reference, batch_size=batch_size
            )  # fmt: skip
            if samples is None:
                quality.check_count(chosen, space, model.experiment.image_shape, num_samples)
                samples = image_sets.draw(model, num_samples=num_samples, batch_size=batch_size, seed=seed)
            scores += quality.score_samples(chosen, space, samples, folder=folder, batch_size=batch_size)
    for metric in (metric for metric in metrics if metric in OF_PREDICTIONS):
        kind = progressive.KINDS[metric]
        space = spaces[kind] if spaces else open_space(
            kind, ["fid"], experiment=model.experiment, reference=reference, batch_size=batch_size
        )  # fmt: skip
        if folder is None:
            raise ValueError(f"{metric} takes a folder for its predictions, and there is none.")
        scores += progressive.measure_predictions(
            metric, model, space, folder, num_samples=num_samples, batch_size=batch_size, seed=seed
        )
    return scores


def prepare(
    experiment: Experiment, *, metrics: Sequence[str] | None = None
) -> Callable[[TrainedModel], dict[str, float]]:
    """Prepares scores during training: all that can go wrong does so here, before training begins.

    The samples and noise are the same at each time, so that what changes is the model. Nothing is written.

    Args:
        experiment: that is trained; batch size and seed are those of its `sample` settings.
        metrics: some of `DURING_TRAINING`; None: train.eval_metrics.

    Returns:
        The function that measures `train.eval_samples` samples, or test images for bpd_fast: model -> {name: score}.

    Raises:
        ValueError: for an unknown metric, a data set without labels or test split, a model that knows no classes, too
            few samples.
        OSError: if Inception's weights are needed and not there.
    """
    settings, count = experiment.config.sample, experiment.config.train.eval_samples
    metrics = experiment.config.train.eval_metrics if metrics is None else metrics
    check_metrics(metrics, DURING_TRAINING, name="train.eval_metrics")
    check_classes(metrics, experiment)
    spaces = {
        kind: open_space(kind, names, experiment=experiment, reference=None, batch_size=settings.batch_size)
        for kind, names in quality.KINDS.items()
        if set(names) & set(metrics)
    }
    for kind, space in spaces.items():
        measured = [metric for metric in metrics if metric in quality.KINDS[kind]]
        quality.check_count(measured, space, experiment.image_shape, count)
    images = image_sets.share_split(experiment, "test") if "bpd_fast" in metrics else None
    if images is not None:  # the first ones, in their order
        images = dataclasses.replace(images, shape=(min(count, len(images)), *images.shape[1:]))

    def measure(model: TrainedModel) -> dict[str, float]:
        scores = evaluate(
            model, metrics, spaces=spaces, images=images, num_samples=count, seed=settings.seed,
            batch_size=settings.batch_size,
        )  # fmt: skip
        return {_log_name(score): score.value for score in scores}

    return measure


def open_space(
    kind: str,
    metrics: Sequence[str],
    *,
    experiment: Experiment | None,
    reference: ImageSet | Path | None,
    batch_size: int,
    labelled: Callable[[], tuple] | None = None,
    weights: Path | None = None,
) -> FeatureSpace:
    """Opens an extractor, and computes the features of the reference if the metrics need one.

    Args:
        kind: 'inception' or 'classifier'.
        metrics: that are measured there.
        experiment: whose training images are the reference, and train the classifier, where nothing else is given.
        reference: images to compare with, or an .npz of their statistics.
        batch_size: images at a time.
        labelled: opens the data set that trains the classifier, as `image_sets.named_split` does.
        weights: a file to take in place of the published weights of Inception.

    Raises:
        ValueError: if the data set has no labels, or there is neither experiment nor reference.
        OSError: if Inception's weights are needed and not there.
    """
    if kind == "inception":
        extractor = quality.inception_extractor(weights)
    else:
        if experiment is None and labelled is None:
            raise ValueError("A classifier needs a data set with labels: give a model, or another metric.")
        extractor = quality.classifier_extractor(labelled or (lambda: image_sets.named_split(experiment)))
    if set(metrics) <= set(quality.WITHOUT_REFERENCE):
        return FeatureSpace(extractor, None)
    if isinstance(reference, Path):
        return FeatureSpace(extractor, quality.reference_from_statistics(reference, extractor))
    if reference is None and experiment is None:
        raise ValueError(f"{', '.join(metrics)} compares with reference images, and there are none.")
    if reference is None:
        reference = image_sets.share(lambda: image_sets.from_source(*image_sets.named_split(experiment)))
    return FeatureSpace(extractor, quality.reference_from_images(extractor, reference, batch_size=batch_size))


def check_metrics(metrics: Sequence[str], known: Sequence[str], *, name: str) -> None:
    """Refuses metrics that there are not.

    Raises:
        ValueError: naming the first of them, and the setting.
    """
    if unknown := [metric for metric in metrics if metric not in known]:
        raise ValueError(f"Unknown metric {unknown[0]!r} in {name}; choose from {', '.join(known)}.")


def check_classes(metrics: Sequence[str], experiment: Experiment) -> None:
    """Refuses the metric of classes for a model that is asked for none.

    Raises:
        ValueError: if it is.
    """
    labels = config.sample_labels(experiment.config)
    if quality.LABELS in metrics and (labels is None or -1 in labels):
        raise ValueError(f"{quality.LABELS} measures samples of a class, and this model is asked for none.")


def _measure_likelihood(
    selection: Selection,
    metrics: Sequence[str],
    *,
    num_timesteps: int | None,
    batch_size: int,
    folder: Path | None,
) -> list[Score]:
    scores: dict[str, Score] = {}
    for metric in metrics:
        settings = selection.settings
        if metric == "bpd_fast":
            score = bits_per_dim.estimate_total(selection, folder, num_timesteps=num_timesteps, batch_size=batch_size)
            scores[metric] = score
            settings = settings | {"timesteps_per_image": score.table["timesteps_per_image"]}
        elif metric == "bpd_ode":
            score = bits_per_dim.measure_ode(selection, folder, num_steps=num_timesteps, batch_size=batch_size)
            scores[metric] = score
            settings = settings | {"solver_steps": score.table["solver_steps"]}
        elif metric not in scores:
            both = bits_per_dim.measure_terms(selection, folder, batch_size=batch_size)
            scores |= {score.metric: score for score in both}
        if folder and metric != "rd":  # whose numbers stand in its table
            _write(folder, scores[metric], settings)
    return [scores[metric] for metric in metrics]


def _write(folder: Path, score: Score, settings: dict[str, Any]) -> None:
    parallel.agree(lambda: results.write(folder / results.FILE, [score], settings=settings))


def _log_name(score: Score) -> str:
    """Returns the name under which a score is logged during training."""
    return "bpd_fast" if score.metric == "bpd_fast" else score.name
