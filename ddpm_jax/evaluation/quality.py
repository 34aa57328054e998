"""Quality of samples: features of images, reference statistics, and FID, IS, KID, precision and recall from them.

Ho et al. 2020, Tables 1 to 3: 50,000 samples against the statistics of the training set. Both sets go through the
same extractor as uint8; reference statistics are kept on disk by a fingerprint of all that they depend on.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax import data, parallel
from ddpm_jax.evaluation import image_sets
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.record import Score
from ddpm_jax.metrics import classifier, moments, scores
from ddpm_jax.metrics.features import Extractor
from ddpm_jax.metrics.precision_recall import precision_recall
from ddpm_jax.runs.resumable import Rows
from ddpm_jax.runtime import cache

# With the features of Inception, as papers report them; and of a classifier, under names nobody mistakes for those.
INCEPTION = ("fid", "is", "kid", "pr")
CLASSIFIER = {"fd_classifier": "fid", "is_classifier": "is", "kd_classifier": "kid", "pr_classifier": "pr"}

_SEED = 0  # of the shuffles and subsets of IS and KID: not of the samples, which have one of their own


class Reference(NamedTuple):
    """What samples are compared with.

    Attributes:
        about: JSON values that say what it is.
        statistics: of the features of all its images.
        pool: float32 [N, D], the features themselves; None where only statistics are at hand.
    """

    about: dict[str, Any]
    statistics: moments.Statistics
    pool: np.ndarray | None


def classifier_extractor(source: data.Source, name: str) -> Extractor:
    """The classifier of a data set, from the cache if it was trained before.

    Raises:
        ValueError: if the data set has no labels.
    """
    about = json.dumps(image_sets.of_source(source, name, labels=True).about, sort_keys=True)
    file = cache.folder() / "classifiers" / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.npz"
    if not file.is_file():
        print(f"Training the classifier of {name}, whose features are compared; it is kept in {file}.")
        trained = classifier.train(source, name=name)
        file.parent.mkdir(parents=True, exist_ok=True)
        classifier.save(trained, file)
    return classifier.load(file)


def features(extractor: Extractor, images: ImageSet, path: Path, *, batch_size: int) -> Rows:
    """The features of all images, on all devices, continued where it stopped.

    Args:
        extractor: of D features and K logits.
        images: N of them.
        path: where rows are kept while they are worked on.
        batch_size: images at a time.

    Returns:
        Rows [N, D + K] float32; to be removed when done with.

    Raises:
        signals.Stopped: if a signal asked for it.
    """
    example = jax.ShapeDtypeStruct((1, *images.shape[1:]), np.uint8)
    width = sum(part.shape[1] for part in jax.eval_shape(extractor.apply, extractor.params, example))
    settings = {"images": images.about, "extractor": extractor.fingerprint}
    rows = Rows(path, settings=settings, shape=(len(images), width), dtype=np.float32)
    run, params = parallel.pmap_batches(extractor.apply), parallel.replicate(extractor.params)

    def measure(numbers: np.ndarray) -> np.ndarray:  # [B, D + K]
        found = run(params, images.read(np.minimum(numbers, len(images) - 1)))
        return np.concatenate([found.pool, found.logits], axis=1)

    rows.fill(measure, batch_size=min(batch_size, len(images)))
    return rows


def reference_of(extractor: Extractor, images: ImageSet, *, batch_size: int) -> Reference:
    """Features and statistics of a set of images, from the cache if they were computed before.

    Raises:
        signals.Stopped: if a signal asked for it.
    """
    settings = {"images": images.about, "extractor": f"{extractor.name} {extractor.fingerprint}"}
    fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    file = cache.folder() / "references" / f"{fingerprint}.npz"
    pool_file = file.with_suffix(".npy")
    if not file.is_file():
        print(f"Features of the reference, {images.about['images']}:")
        rows = features(extractor, images, file, batch_size=batch_size)
        pool = rows.array[:, : _pool_width(extractor, images)]
        unfinished = pool_file.with_suffix(".unfinished.npy")
        np.save(unfinished, pool)
        os.replace(unfinished, pool_file)
        moments.save(file, moments.of(pool).statistics(**settings))  # last: its presence says that all is there
        rows.remove()
    about = {"name": images.about["images"], "count": len(images), "fingerprint": fingerprint}
    return Reference(about, moments.load(file), np.load(pool_file, mmap_mode="r", allow_pickle=False))


def holds_statistics(file: Path) -> bool:
    """Whether an .npz is one of statistics, not of images."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return "mu.npy" in archive.namelist()


def reference_from(file: Path) -> Reference:
    """Statistics of an .npz in pytorch-fid's layout, `mu` [D] and `sigma` [D, D].

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    statistics = moments.load(file)
    with file.open("rb") as stream:
        fingerprint = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return Reference({"name": file.name, "count": statistics.count, "fingerprint": fingerprint}, statistics, None)


def measure(
    metrics: Sequence[str], extractor: Extractor, samples: ImageSet, reference: Reference | None, rows: np.ndarray
) -> list[Score]:
    """Scores of samples.

    Args:
        metrics: names from `INCEPTION`, or from `CLASSIFIER`.
        extractor: that the features are of.
        samples: N images.
        reference: to compare with; the Inception score needs none.
        rows: [N, D + K], from `features`.

    Raises:
        ValueError: if the features of two sets do not fit, are too few, or only statistics of the reference are there.
    """
    width = _pool_width(extractor, samples)
    pool, logits = rows[:, :width], rows[:, width:]
    found = []
    for metric in metrics:
        kind, n = CLASSIFIER.get(metric, metric), len(samples)
        if kind in ("kid", "pr") and reference.pool is None:
            raise ValueError(
                f"{metric} needs the reference's images, and {reference.about['name']} has statistics alone."
            )
        if kind == "fid":
            distance = scores.frechet_distance(moments.of(pool).statistics(), reference.statistics).distance
            found.append(Score(metric, _name("FID", metric, n), distance))
        elif kind == "is":
            score = scores.inception_score(logits, seed=_SEED)
            found.append(Score(metric, _name("IS", metric, n), score.mean, score.deviation, "deviation of 10 splits"))
        elif kind == "kid":
            score = scores.kernel_distance(pool, reference.pool, seed=_SEED)
            error_name = f"deviation of {score.subsets} subsets of {score.subset_size}"
            found.append(Score(metric, _name("KID", metric, n), score.mean, score.deviation, error_name))
        else:
            score = precision_recall(reference.pool, pool)
            found += [
                Score(metric, _name(name, metric, n), value)
                for name, value in (("precision", score.precision), ("recall", score.recall))
            ]
    return found


def settings_of(extractor: Extractor, samples: dict[str, Any], reference: Reference | None) -> dict[str, Any]:
    """All that the scores depend on; `samples` is what an `ImageSet` says about itself."""
    return {
        "samples": samples,
        "reference": reference and reference.about,
        "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
        "rounding": image_sets.ROUNDING,
    }


def _name(score: str, metric: str, count: int) -> str:
    """What people call it: FID@1000; of a classifier's features fd_classifier@1000, precision_classifier@1000."""
    if metric in CLASSIFIER:
        score = f"{score}_classifier" if CLASSIFIER[metric] == "pr" else metric
    return scores.score_name(score, count)


def _pool_width(extractor: Extractor, images: ImageSet) -> int:
    example = jax.ShapeDtypeStruct((1, *images.shape[1:]), np.uint8)
    return jax.eval_shape(extractor.apply, extractor.params, example).pool.shape[1]
