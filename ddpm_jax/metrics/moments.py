"""Mean and covariance of features, in float64 and in one pass over them (Chan, Golub, LeVeque 1983).

Moments of parts merge into those of the whole, so features need not be kept: memory is that of two [D, D] matrices,
however many images there are. Files are in pytorch-fid's format and can be exchanged with it.
"""

import dataclasses
import functools
import json
import os
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.runtime import files, foreign_files

_BLOCK = 4096  # rows converted to float64 at a time


class Statistics(NamedTuple):
    """Holds all that the Frechet distance needs to know about a set of features."""

    mean: np.ndarray  # [D] float64
    covariance: np.ndarray  # [D, D] float64, symmetric; unbiased, divided by n - 1
    count: int | None = None  # n; None if the file it comes from does not say
    metadata: dict[str, Any] = {}  # JSON values that say what was measured  # noqa: RUF012


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Holds the moments of the features seen so far.

    Attributes:
        count: n, the number of features.
        mean: [D] float64.
        scatter: [D, D] float64, the sum of (feature - mean) (feature - mean)^T.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    def covariance(self) -> np.ndarray:
        """Computes the unbiased covariance, as NumPy and pytorch-fid do: [D, D] float64.

        Raises:
            ValueError: for fewer than 2 features.
        """
        if self.count < 2:
            raise ValueError(f"A covariance needs 2 features at least; got {self.count}.")
        return self.scatter / (self.count - 1)

    def statistics(self, **metadata: Any) -> Statistics:
        """Returns what `frechet_distance` takes and `save` writes; metadata are JSON values. Raises as `covariance`."""
        return Statistics(self.mean, self.covariance(), self.count, metadata)


def from_features(features: np.ndarray) -> Moments:
    """Computes the moments of features [n, D], n at least 1, of any float dtype; they may be mapped from a file.

    Raises:
        ValueError: if the features have another shape or are not all finite.
    """
    if features.ndim != 2 or not features.size:
        raise ValueError(f"Features must be [n, D], neither of them 0; got {list(features.shape)}.")
    return functools.reduce(merge, (_from_block(features[i : i + _BLOCK]) for i in range(0, len(features), _BLOCK)))


def _from_block(features: np.ndarray) -> Moments:
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise ValueError("Features must be finite; some are NaN or infinite.")
    mean = features.mean(axis=0)
    centred = features - mean
    # What rounding left in the mean would count n times in the scatter where features lie far from 0.
    rest = centred.mean(axis=0)
    centred -= rest
    return Moments(len(features), mean + rest, centred.T @ centred)


def merge(a: Moments, b: Moments) -> Moments:
    """Merges the moments of two sets of features; the order matters to float64 rounding alone.

    Raises:
        ValueError: if the features are not of one width.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Features of width {len(a.mean)} and {len(b.mean)} have no moments in common.")
    count = a.count + b.count
    delta = b.mean - a.mean
    scatter = np.outer(delta, delta * (a.count * b.count / count))
    scatter += a.scatter
    scatter += b.scatter
    return Moments(count, a.mean + delta * (b.count / count), scatter)


def save(path: str | os.PathLike, statistics: Statistics) -> None:
    """Writes an `.npz` for pytorch-fid: `mu`, `sigma`; and `count` and `about`, the metadata in JSON, which it ignores.

    The file is either the old one or the new one, never half of it.
    """
    arrays = {"mu": statistics.mean, "sigma": statistics.covariance, "about": np.array(json.dumps(statistics.metadata))}
    if statistics.count is not None:
        arrays["count"] = np.array(statistics.count)
    with files.atomically(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def load(path: str | os.PathLike) -> Statistics:
    """Reads what `save` or pytorch-fid wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format or a shape differs, a value is not finite, or `sigma` is not symmetric.
    """
    with foreign_files.open_npz(path, "is no .npz of the statistics of features, mu and sigma") as arrays:
        mean, covariance = (np.asarray(arrays[name], np.float64) for name in ("mu", "sigma"))
        count = int(arrays["count"]) if "count" in arrays else None
        metadata = dict(json.loads(str(arrays["about"]))) if "about" in arrays else {}
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        raise ValueError(
            f"{str(path)!r} must hold mu [D] and sigma [D, D]; it holds {list(mean.shape)} and "
            f"{list(covariance.shape)}."
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{str(path)!r} holds values that are not finite.")
    if not np.allclose(covariance, covariance.T, rtol=0.0, atol=1e-8 * max(np.abs(covariance).max(), 1e-300)):
        raise ValueError(f"The sigma in {str(path)!r} is not symmetric, so it is no covariance.")
    return Statistics(mean, covariance, count, metadata)
