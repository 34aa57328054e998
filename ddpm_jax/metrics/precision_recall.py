"""Improved precision and recall (Kynkaanniemi et al. 2019): how much of each set of features lies within the other.

The manifold of a set is estimated by balls around its features, each with the distance to the k-th nearest neighbour as
its radius. Precision is the fraction of generated features inside balls of real ones, recall the fraction of real
features inside balls of generated ones.

Exact, and fast: squared distances are first bounded by float32 matrix products on the default device. The few that the
bounds leave undecided are computed in float64 on the host, as sums of squared differences. Equal features are then at
distance 0, which |x|^2 - 2 x.y + |y|^2 does not promise.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.metrics.scores import check_features

_BLOCK = 1024  # rows at a time
_BLOCK_VALUES = 2**26  # distances at a time, at most: 256 MiB
_SPARE = 5  # candidates beyond the k-th neighbour, as float32 may order them wrongly


class PrecisionRecall(NamedTuple):
    """Holds precision and recall, in [0, 1], and `k`, the neighbour that sets the radius of a ball."""

    precision: float
    recall: float
    k: int


class _Manifold(NamedTuple):
    """Holds features [N, D], scaled exactly, and as float32 points about a common centre on the device, |point| < 1."""

    features: np.ndarray
    points: jax.Array


def precision_recall(real: np.ndarray, generated: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Computes precision and recall of generated features; exact but for ties within float64 rounding.

    Takes 4 N^2 D multiply-adds, two copies of the features, one of them in float32 on the device, and some 1 GiB.
    Slow if very many features are nearly, but not quite, equal.

    Args:
        real: [N, D].
        generated: [M, D]; the paper, and all who compare, take M = N.
        k: a feature's ball reaches to its k-th nearest neighbour in its own set, the feature itself not counted.

    Raises:
        ValueError: if the features are not [n, D] of one D, finite, and more than k.
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1.")
    check_features(real, generated, at_least=k + 1)
    centre = np.mean(real, axis=0, dtype=np.float64)
    largest = max(_squared_distances_from(centre, features).max() for features in (real, generated))
    exponent = np.frexp(np.sqrt(largest))[1]  # a power of 2 changes no digit, and keeps float32 from overflowing
    of_real, of_generated = (_make_manifold(features, centre, exponent) for features in (real, generated))
    precision = _in_balls(of_generated, of_real, _squared_radii(of_real, k)).mean()
    recall = _in_balls(of_real, of_generated, _squared_radii(of_generated, k)).mean()
    return PrecisionRecall(float(precision), float(recall), k)


def _make_manifold(features: np.ndarray, centre: np.ndarray, exponent: int) -> _Manifold:
    scaled = np.ldexp(features, -exponent)
    return _Manifold(scaled, jnp.asarray(scaled - np.ldexp(centre, -exponent), jnp.float32))


def _squared_radii(manifold: _Manifold, k: int) -> np.ndarray:
    """Computes the squared distance of each feature to its k-th nearest neighbour in the set: [N] float64."""
    features, points = manifold
    n = len(features)
    radii = np.empty(n)
    for rows in _blocks(n, n):
        lower, indices = map(np.asarray, _candidates(points[rows], rows.start, points, min(k + _SPARE, n - 1)))
        exact = _squared_distances(features[rows][:, None], features[indices])  # [B, candidates]
        radii[rows] = np.partition(exact, k - 1, axis=1)[:, k - 1]
        # No other feature is nearer than the last candidate's bound.
        certain = (radii[rows] <= lower[:, -1]) | (radii[rows] == 0.0)
        for i in rows.start + np.flatnonzero(~certain):
            others = np.delete(_squared_distances_from(features[i], features), i)
            radii[i] = np.partition(others, k - 1)[k - 1]
    return radii


def _in_balls(manifold: _Manifold, other: _Manifold, squared_radii: np.ndarray) -> np.ndarray:
    """Tells which features of a manifold lie in a ball of the other one: bool [N]."""
    inside = np.empty(len(manifold.features), bool)
    for rows in _blocks(len(inside), len(squared_radii)):
        surely, possibly = map(np.asarray, _bounded_in_balls(manifold.points[rows], other.points, squared_radii))
        inside[rows] = surely
        for i in rows.start + np.flatnonzero(possibly & ~surely):
            inside[i] = np.any(_squared_distances_from(manifold.features[i], other.features) <= squared_radii)
    return inside


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    size = max(1, min(_BLOCK, _BLOCK_VALUES // num_columns))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums over the last axis in float64; broadcasts. Always adds in one order, so equal pairs are equally far."""
    difference = np.subtract(x, y, dtype=np.float64)
    return np.square(difference, out=difference).sum(axis=-1)


def _squared_distances_from(feature: np.ndarray, others: np.ndarray) -> np.ndarray:
    blocks = _blocks(*others.shape)
    return np.concatenate([_squared_distances(others[rows], feature[None]) for rows in blocks])  # [N]


@functools.partial(jax.jit, static_argnums=3)
def _candidates(block: jax.Array, start: jax.Array, points: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Finds the `count` least lower bounds, ascending, and where: [B, count]; the block's rows begin at `start`."""
    lower, _ = _bounds(block, points)
    is_self = (start + jnp.arange(len(block)))[:, None] == jnp.arange(len(points))[None]
    least, indices = jax.lax.top_k(jnp.where(is_self, -jnp.inf, -lower), count)
    return -least, indices


@jax.jit
def _bounded_in_balls(points: jax.Array, centres: jax.Array, squared_radii: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tells which points [B, D] lie in a ball around a centre [M, D], surely and possibly: each bool [B]."""
    lower, upper = _bounds(points, centres)
    return (upper <= squared_radii[None]).any(axis=1), (lower <= squared_radii[None]).any(axis=1)


def _bounds(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Bounds the squared distances of [B, D] and [M, D] from below and above: each [B, M].

    Rounding errors of float32 add up as a random walk does, to sqrt(D) in place of D (Higham and Mary 2019), here with
    a factor of 5. The 10 is for the points, the radii and the sum; the last term for products that underflow.
    """
    norms = jnp.square(x).sum(axis=1)[:, None] + jnp.square(y).sum(axis=1)[None]
    distances = norms - 2.0 * jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    float32, width = np.finfo(np.float32), x.shape[1]
    error = (5.0 * np.sqrt(width) + 10.0) * (float32.eps / 2) * norms + 4.0 * width * float32.tiny
    return distances - error, distances + error
