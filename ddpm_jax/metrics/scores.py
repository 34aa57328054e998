"""Scores computed from features: Frechet distance (FID, FID-infinity), Inception score, kernel distance (KID).

A score's name depends on the features as much as on the formula: FID, IS and KID are those of Inception-v3's features.
The random numbers of IS and KID are drawn in torch-fidelity's order, so with its seed (2020 by default) they equal its
own.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ddpm_jax.metrics import moments
from ddpm_jax.metrics.moments import Statistics

_USUAL_SAMPLES = 50_000
_SUBSETS = 15  # of which the Frechet distance is extrapolated


class FrechetDistance(NamedTuple):
    """Holds the distance, squared as FID is, and its two terms: of the means, and of the covariances."""

    distance: float
    mean_term: float
    covariance_term: float


class InceptionScore(NamedTuple):
    """Holds the mean and standard deviation (not that of the mean) over the splits."""

    mean: float
    deviation: float


class KernelDistance(NamedTuple):
    """Holds the mean and standard deviation (not that of the mean) over the subsets."""

    mean: float  # may be below 0: the estimate is unbiased
    deviation: float | None  # None where a subset holds all features of a set, so that it is the same each time
    subsets: int
    subset_size: int  # smaller than requested if there are fewer features


def score_name(name: str, num_samples: int) -> str:
    """Returns 'FID' for 50,000 samples, 'FID@5000' for 5,000, which do not compare: FID rises as samples get fewer."""
    return name if num_samples == _USUAL_SAMPLES else f"{name}@{num_samples}"


def check_features(*sets: np.ndarray, at_least: int = 2) -> None:
    """Raises an error for features that cannot be scored.

    Raises:
        ValueError: unless all are [n, D] of one D, with n at least `at_least`, and finite.
    """
    shapes = [list(features.shape) for features in sets]
    if any(len(shape) != 2 for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
        raise ValueError(f"Features must be [n, D], of one D; got {' and '.join(map(str, shapes))}.")
    if min(shape[0] for shape in shapes) < at_least:
        raise ValueError(f"This score needs {at_least} features at least; got {min(shape[0] for shape in shapes)}.")
    if not all(np.isfinite(features).all() for features in sets):
        raise ValueError("Features must be finite; some are NaN or infinite.")


def frechet_distance(a: Statistics, b: Statistics) -> FrechetDistance:
    """Computes |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^{1/2}), the FID of Heusel et al. 2017.

    With S = F F^T, the last trace is the sum of the singular values of F_a^T F_b. This takes no roots of rounding
    errors, as the eigenvalues of S_a S_b would, so covariances of fewer images than dimensions do no harm.

    Args:
        a: statistics of one set of features, from `moments`.
        b: those of the other set; the distance is symmetric.

    Raises:
        ValueError: if the features are not of one width, or not finite.
    """
    (distance,) = _frechet_distances([a], b)
    return distance


def extrapolated_frechet_distance(features: np.ndarray, reference: Statistics, *, seed: int) -> float:
    """Estimates the Frechet distance of infinitely many samples: FID-infinity of Chong and Forsyth 2020.

    The distance of n samples is too large by about c / n, with another c for each model. So those of random subsets of
    15 sizes, evenly from N / 10 (at least 2 D) to N, are fitted by a line in 1 / n, whose value at 0 this is. What the
    number of images of the reference adds stays. With 50,000 of Inception's features the sizes are those of the
    paper (arXiv:1911.07023).

    Args:
        features: [N, D], with N at least `fewest_to_extrapolate(D)`.
        reference: statistics of the other set.
        seed: draws the subsets, each without replacement.

    Returns:
        The distance; a small one may come out below 0.

    Raises:
        ValueError: if there are fewer features, or as `frechet_distance`.
    """
    n, width = len(features), features.shape[-1]
    check_features(features, at_least=fewest_to_extrapolate(width))
    sizes = np.linspace(max(n // 10, 2 * width), n, _SUBSETS).astype(int)
    rng = np.random.RandomState(seed)
    subsets = (moments.from_features(features[rng.permutation(n)[:size]]).statistics() for size in sizes)
    distances = [each.distance for each in _frechet_distances(subsets, reference)]
    return float(np.polynomial.Polynomial.fit(1.0 / sizes, distances, 1)(0.0))


def fewest_to_extrapolate(width: int) -> int:
    """Counts the features [N, D] below which the distance does not fall as 1 / n yet: 4 D."""
    return 4 * width


def _frechet_distances(sets: Iterable[Statistics], b: Statistics) -> Iterator[FrechetDistance]:
    """Computes the distance of each set to b, whose covariance is factored once."""
    _check_finite(b)
    factor = _factor(b.covariance)
    for a in sets:
        if a.mean.shape != b.mean.shape:
            raise ValueError(f"Statistics of features of width {len(a.mean)} and {len(b.mean)} cannot be compared.")
        _check_finite(a)
        mean_term = float(np.square(a.mean - b.mean).sum())
        trace_of_root = np.linalg.svd(_factor(a.covariance).T @ factor, compute_uv=False).sum()
        covariance_term = np.trace(a.covariance) + np.trace(b.covariance) - 2.0 * trace_of_root
        covariance_term = max(0.0, float(covariance_term))  # below 0 by rounding alone
        yield FrechetDistance(mean_term + covariance_term, mean_term, covariance_term)


def _check_finite(statistics: Statistics) -> None:
    if not all(np.isfinite(array).all() for array in (statistics.mean, statistics.covariance)):
        raise ValueError("Statistics of features must be finite; some are NaN or infinite.")


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Factors S = F F^T, F [D, r], with r the rank of S to float64 rounding."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(0.0, values[-1]) * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def inception_score(logits: np.ndarray, *, splits: int = 10, seed: int) -> InceptionScore:
    """Computes exp E KL(p(y|x) || p(y)), Salimans et al. 2016, for each split of the shuffled images.

    Args:
        logits: [N, K], of K classes.
        splits: parts whose sizes differ by one image at most, each with its own p(y).
        seed: shuffles the images, by `RandomState(seed).permutation(N)`.

    Raises:
        ValueError: if the logits are not [N, K], finite, at least two and at least one for each split.
    """
    check_features(logits)
    n = len(logits)
    if not 1 <= splits <= n:
        raise ValueError(f"splits={splits} must be from 1 to the {n} images.")
    order = np.random.RandomState(seed).permutation(n)
    scores = []
    for i in range(splits):
        part = np.asarray(logits[order[i * n // splits : (i + 1) * n // splits]], np.float64)  # [n / splits, K]
        shifted = part - part.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        q = p.mean(axis=0)  # [K]
        log_q = np.log(q, out=np.zeros_like(q), where=q > 0.0)  # 0 log 0 = 0
        scores.append(np.exp((p * log_p).sum(axis=1).mean() - (q * log_q).sum()))
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def kernel_distance(
    a: np.ndarray, b: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int
) -> KernelDistance:
    """Computes the KID of Binkowski et al. 2018: unbiased MMD^2 for the kernel (x.y / D + 1)^3, over random subsets.

    Args:
        a: [N, D] features.
        b: [M, D] features of the other set.
        subsets: number of pairs of subsets.
        subset_size: features in each; fewer if N or M is smaller.
        seed: draws the subsets: from one RandomState(seed), those of a and b in turn, each without replacement.

    Raises:
        ValueError: if the features are not [n, D] of one D, finite, and at least two, or the subsets impossible.
    """
    check_features(a, b)
    if subsets < 1 or subset_size < 2:
        raise ValueError(f"subsets={subsets} must be at least 1, and subset_size={subset_size} at least 2.")
    size = min(subset_size, len(a), len(b))
    rng = np.random.RandomState(seed)
    distances = []
    for _ in range(subsets):
        x, y = (np.asarray(f[rng.choice(len(f), size, replace=False)], np.float64) for f in (a, b))  # [size, D]
        distances.append(_mmd2(x, y))
    deviation = float(np.std(distances)) if size < min(len(a), len(b)) else None
    return KernelDistance(float(np.mean(distances)), deviation, subsets, size)


def _mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """Estimates MMD^2 of two sets [m, D] without bias; in float64, as it is a small difference of large sums."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        base = x @ y.T / x.shape[1] + 1.0
        return base * base * base

    m, within = len(x), 0.0
    for one in (x, y):
        values = kernel(one, one)
        within += values.sum() - np.trace(values)
    return within / (m * (m - 1)) - 2.0 * kernel(x, y).sum() / (m * m)
