"""Quality of samples: features of images, reference statistics, and FID, IS, KID, precision and recall from them.

Ho et al. 2020, Tables 1 to 3: 50,000 samples against the statistics of the training set. Both sets go through the
same extractor as uint8; reference statistics are kept on disk by a fingerprint of all that they depend on. Every
process calls these functions alike; process 0 holds the features and computes the scores.
"""

import contextlib
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax import data, parallel
from ddpm_jax.evaluation import image_sets, results
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.results import Score
from ddpm_jax.metrics import classifier, inception, moments, scores
from ddpm_jax.metrics.features import Extractor
from ddpm_jax.metrics.precision_recall import precision_recall
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runtime import cache, files, foreign_files

# With the features of Inception, as papers report them; and of a classifier, under names nobody mistakes for those.
INCEPTION = ("fid", "fid_infinity", "is", "kid", "pr")
CLASSIFIER = {
    "fd_classifier": "fid", "fd_infinity_classifier": "fid_infinity", "is_classifier": "is", "kd_classifier": "kid",
    "pr_classifier": "pr",
}  # fmt: skip
LABELS = "label_accuracy"  # how often the classifier sees the class that was asked for; needs no features
KINDS = {"inception": INCEPTION, "classifier": (*CLASSIFIER, LABELS)}  # of features: the metrics in each
WITHOUT_REFERENCE = ("is", "is_classifier", LABELS)

_SEED = 0  # of the shuffles and subsets of IS and KID: not of the samples, which have one of their own


class Reference(NamedTuple):
    """The features that samples are compared with.

    Attributes:
        metadata: JSON values that say what it is.
        statistics: of the features of all its images; on process 0 alone.
        pool: float32 [N, D], the features themselves; None where only statistics are at hand.
    """

    metadata: dict[str, Any]
    statistics: moments.Statistics | None = None
    pool: np.ndarray | None = None


class FeatureSpace(NamedTuple):
    """An extractor, and in its features what samples are compared with; None where no metric needs a reference."""

    extractor: Extractor
    reference: Reference | None


def inception_extractor(weights: Path | None = None) -> Extractor:
    """Loads Inception on process 0, for all.

    Raises:
        OSError, ValueError: as `inception.extractor`, on all processes.
    """
    return _share_extractor(lambda: inception.extractor(weights), inception.from_params)


def classifier_extractor(open_source: Callable[[], tuple[data.Source, str]]) -> Extractor:
    """Loads the classifier of a data set on process 0, for all; from the cache if it was trained before.

    Args:
        open_source: opens the data set and names it, as `image_sets.named_split` does.

    Raises:
        ValueError: if the data set has no labels.
    """

    def load_or_train() -> Extractor:
        source, name = open_source()
        metadata = json.dumps(image_sets.from_source(source, name, labels=True).metadata, sort_keys=True)
        file = cache.folder() / "classifiers" / f"{hashlib.sha256(metadata.encode()).hexdigest()[:16]}.npz"
        with cache.missing(file) as missing:
            if missing:
                print(f"Training the classifier of {name}, whose features are compared; it is kept in {file}.")
                classifier.save(classifier.train(source, name=name), file)
        return classifier.load(file)

    return _share_extractor(load_or_train, classifier.from_params)


def _share_extractor(load: Callable[[], Extractor], from_params: Callable[[str, Any], Extractor]) -> Extractor:
    loaded: list[Extractor] = []

    def read() -> dict:
        loaded.append(load())
        return loaded[0].params

    params = parallel.read_on_primary(read)
    name = parallel.agree(lambda: loaded[0].name)
    return loaded[0] if loaded else from_params(name, params)


@functools.lru_cache(maxsize=4)
def _map_features(apply: Callable) -> Callable:
    return parallel.map_batches(apply)


def features(extractor: Extractor, images: ImageSet, path: Path | None, *, batch_size: int) -> ResumableArray:
    """Computes the features of all images, on all devices, continued where it stopped.

    Args:
        extractor: of D features and K logits.
        images: N of them.
        path: where rows are kept while they are worked on; None: in memory.
        batch_size: images at a time.

    Returns:
        Rows [N, D + K] float32; to be removed when done with.

    Raises:
        signals.Stopped: if a signal requested it.
    """
    settings = {"images": images.metadata, "extractor": extractor.fingerprint}
    shape = (len(images), sum(_widths(extractor, images.shape[1:])))
    rows = ResumableArray(path, settings=settings, shape=shape, dtype=np.float32)
    run, params = _map_features(extractor.apply), parallel.replicate(extractor.params)

    def measure(numbers: np.ndarray) -> np.ndarray:  # [B, D + K]
        batch = run(params, images.read(np.minimum(numbers, len(images) - 1)))
        return np.concatenate([batch.pool, batch.logits], axis=1)

    rows.fill(measure, batch_size=min(batch_size, len(images)))
    return rows


def reference_from_images(extractor: Extractor, images: ImageSet, *, batch_size: int) -> Reference:
    """Computes features and statistics of a set of images, or reads them from the cache.

    Raises:
        signals.Stopped: if a signal requested it.
    """
    settings = {"images": images.metadata, "extractor": extractor.identity}
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    file = cache.folder() / "references" / f"{fingerprint}.npz"
    pool_file = file.with_suffix(".npy")
    with contextlib.ExitStack() as stack:
        if parallel.agree(lambda: stack.enter_context(cache.missing(file))):
            print(f"Features of the reference, {images.metadata['images']}:")
            rows = features(extractor, images, file, batch_size=batch_size)

            def keep() -> None:
                pool = rows.array[:, : _widths(extractor, images.shape[1:])[0]]
                with files.atomically(pool_file) as unfinished, unfinished.open("wb") as opened:
                    np.save(opened, pool)
                # Last: its presence says all is there.
                moments.save(file, moments.from_features(pool).statistics(**settings))
                rows.remove()

            parallel.agree(keep)
    metadata = {"name": images.metadata["images"], "count": len(images), "fingerprint": fingerprint}
    return parallel.raise_on_all(
        lambda: Reference(metadata, moments.load(file), np.load(pool_file, mmap_mode="r", allow_pickle=False))
        if parallel.is_primary() else Reference(metadata)
    )  # fmt: skip


def holds_statistics(file: Path) -> bool:
    """Tells whether an .npz is one of statistics, not of images."""
    if not zipfile.is_zipfile(file):
        return False
    with foreign_files.open_npz(file, "is no .npz of images or of statistics") as arrays:
        return "mu" in arrays


def reference_from_statistics(file: Path, extractor: Extractor) -> Reference:
    """Reads statistics of an .npz in pytorch-fid's layout, `mu` [D] and `sigma` [D, D], on process 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else, or statistics of other features than the extractor's.
    """
    statistics: list[moments.Statistics] = []

    def read() -> dict[str, Any]:
        statistics.append(moments.load(file))
        theirs = statistics[0].metadata.get("extractor")
        if theirs is None:
            print(
                f"Warning: {file} does not say whose features it is of; only those of {extractor.name} can be "
                "compared. pytorch-fid's are others, as it resizes images in another way."
            )
        elif theirs != extractor.identity:
            raise ValueError(f"{file} is of the features of {theirs}, not {extractor.identity}: give the images.")
        with file.open("rb") as stream:
            fingerprint = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
        return {"name": file.name, "count": statistics[0].count, "fingerprint": fingerprint}

    metadata = parallel.agree(read)
    return Reference(metadata, statistics[0] if statistics else None)


def check_count(metrics: Sequence[str], space: FeatureSpace, image_shape: tuple[int, ...], num_samples: int) -> None:
    """Refuses too few samples for a metric, before they are drawn.

    Raises:
        ValueError: naming the metric, and how many it needs.
    """
    for metric in (metric for metric in metrics if CLASSIFIER.get(metric, metric) == "fid_infinity"):
        least = scores.fewest_to_extrapolate(_widths(space.extractor, image_shape)[0])
        if num_samples < least:
            other = "kd_classifier" if metric in CLASSIFIER else "kid"
            raise ValueError(
                f"{metric} needs {least} samples at least, not {num_samples}: {other} has no bias with any number."
            )


def score_samples(
    metrics: Sequence[str], space: FeatureSpace, samples: ImageSet, *, folder: Path | None, batch_size: int
) -> list[Score]:
    """Scores samples in one feature space; scores measured before are read from metrics.json.

    Args:
        metrics: names of one of `KINDS`.
        space: the features, and the reference to compare with.
        samples: N images.
        folder: of metrics.json, where scores are written; None: nothing is kept.
        batch_size: images at a time.

    Raises:
        ValueError: if the features of two sets do not fit, are too few (see `check_count`), only statistics of the
            reference are there, or the samples have no classes to be told by.
        signals.Stopped: if a signal requested it.
    """
    check_count(metrics, space, samples.shape[1:], len(samples))
    extractor, settings = space.extractor, score_settings(space, samples.metadata)
    file = folder and folder / results.FILE
    before = [Score(*entry) for entry in parallel.agree(lambda: results.find(file, settings=settings) if file else [])]
    missing = [metric for metric in metrics if metric not in {score.metric for score in before}]
    measured: list[Score] = []
    if missing:
        name = f"features_{samples.metadata['sha256']}_{extractor.fingerprint}.rows"
        labels = _labels(samples) if LABELS in missing else None
        rows = features(extractor, samples, folder and folder / name, batch_size=batch_size)

        def compute() -> list[Score]:
            computed = _compute(missing, space, samples, rows.array, labels)
            if file:
                results.write(file, computed, settings=settings)
            rows.remove()
            return computed

        measured = [Score(*entry) for entry in parallel.agree(compute)]
    return [score for score in before + measured if score.metric in metrics]


def compute_scores(metrics: Sequence[str], space: FeatureSpace, samples: ImageSet, rows: ResumableArray) -> list[Score]:
    """Computes scores from the features of samples, from `features`.

    Raises:
        ValueError: if the features of two sets do not fit, are too few, or only statistics of the reference are there.
    """
    return [Score(*entry) for entry in parallel.agree(lambda: _compute(metrics, space, samples, rows.array))]


def _labels(samples: ImageSet) -> np.ndarray:
    """Reads the classes of samples, int32 [N]; every process calls it alike."""
    if samples.read_labels is None:
        raise ValueError(f"{LABELS} needs the classes of the images, and {samples.metadata['images']!r} have none.")
    return samples.read_labels(np.arange(len(samples)))


def _compute(
    metrics: Sequence[str],
    space: FeatureSpace,
    samples: ImageSet,
    rows: np.ndarray,
    labels: np.ndarray | None = None,
) -> list[Score]:
    width = _widths(space.extractor, samples.shape[1:])[0]
    pool, logits, reference = rows[:, :width], rows[:, width:], space.reference
    computed = []
    for metric in metrics:
        kind, n = CLASSIFIER.get(metric, metric), len(samples)
        if kind in ("kid", "pr") and reference.pool is None:
            raise ValueError(
                f"{metric} needs the reference's images, and {reference.metadata['name']} has statistics alone."
            )
        if kind == LABELS:
            accuracy = float(np.mean(logits.argmax(axis=1) == labels))
            error = float(np.sqrt(accuracy * (1.0 - accuracy) / n))
            computed.append(Score(metric, _name(metric, metric, n), accuracy, error, "standard error"))
        elif kind == "fid":
            statistics = moments.from_features(pool).statistics()
            distance = scores.frechet_distance(statistics, reference.statistics).distance
            computed.append(Score(metric, _name("FID", metric, n), distance))
        elif kind == "fid_infinity":
            distance = scores.extrapolated_frechet_distance(pool, reference.statistics, seed=_SEED)
            computed.append(Score(metric, _name("FID_infinity", metric, n), distance))
        elif kind == "is":
            score = scores.inception_score(logits, seed=_SEED)
            error_name = "deviation of 10 splits"
            computed.append(Score(metric, _name("IS", metric, n), score.mean, score.deviation, error_name))
        elif kind == "kid":
            score = scores.kernel_distance(pool, reference.pool, seed=_SEED)
            error_name = f"deviation of {score.subsets} subsets of {score.subset_size}"
            computed.append(Score(metric, _name("KID", metric, n), score.mean, score.deviation, error_name))
        else:
            score = precision_recall(reference.pool, pool)
            computed += [
                Score(metric, _name(name, metric, n), value)
                for name, value in (("precision", score.precision), ("recall", score.recall))
            ]
    return computed


def score_settings(space: FeatureSpace, samples: dict[str, Any]) -> dict[str, Any]:
    """Returns all that scores depend on; `samples` are the metadata of an `ImageSet`."""
    return {
        "samples": samples,
        "reference": space.reference and space.reference.metadata,
        "extractor": {"name": space.extractor.name, "fingerprint": space.extractor.fingerprint},
        "rounding": image_sets.ROUNDING,
    }


def _name(score: str, metric: str, count: int) -> str:
    """Names a score for people: FID@1000; of a classifier's features fd_classifier@1000, precision_classifier@1000."""
    if metric in CLASSIFIER:
        score = f"{score}_classifier" if CLASSIFIER[metric] == "pr" else metric
    return scores.score_name(score, count)


def _widths(extractor: Extractor, image_shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns D, the number of features, and K, of logits."""
    example = jax.ShapeDtypeStruct((1, *image_shape), np.uint8)
    shapes = jax.eval_shape(extractor.apply, extractor.params, example)
    return shapes.pool.shape[1], shapes.logits.shape[1]
