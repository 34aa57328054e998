"""Improved precision and recall (Kynkaanniemi et al. 2019): how much of each set of features lies within the other.

A set is thought to reach as far as balls around its features, each as large as its k-th neighbour is far. Precision
is the part of the generated features that lie in balls of real ones, recall the part of the real in those of generated.

Exact, and fast: distances are first taken as float32 matrix products on the default device, a block of rows at a time.
Where their rounding could matter, which is so of few features, they are taken again in float64 on the host, from the
differences themselves. Equal features are then at distance 0, which |x|^2 - 2 x.y + |y|^2 does not promise.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.metrics.scores import check_features

_BLOCK = 1024  # rows at a time
_BLOCK_VALUES = 2**26  # distances at a time, at most: 256 MiB
_SPARE = 5  # neighbours looked at beyond the k-th, as float32 may have their order wrong


class PrecisionRecall(NamedTuple):
    """Parts of 1; `k` is the neighbour that sets the radius of a ball."""

    precision: float
    recall: float
    k: int


class _Cloud(NamedTuple):
    """A set of features as it was given, and centred, scaled and in float32 on the device."""

    features: np.ndarray  # [N, D]
    points: jax.Array  # [N, D] float32, |point| <= 1
    norms: jax.Array  # [N] float32, |point|^2


def precision_recall(real: np.ndarray, generated: np.ndarray, *, k: int = 3) -> PrecisionRecall:
    """Precision and recall of generated features; exact but for ties within float64 rounding.

    Takes 3 N^2 D multiply-adds, and, near the features, some 1 GiB beside a float32 copy of them. Slow where very many
    features are nearly, but not quite, equal.

    Args:
        real: [N, D].
        generated: [M, D]; the paper, and all who compare, take M = N.
        k: the radius of a feature's ball is the distance to its k-th neighbour in its own set, itself not counted.

    Raises:
        ValueError: if the features are not [n, D] of one D, finite, and more than k.
    """
    if k < 1:
        raise ValueError(f"k={k} must be at least 1.")
    check_features(real, generated, at_least=k + 1)
    centre = np.mean(real, axis=0, dtype=np.float64)
    scale = max(float(np.sqrt(_squared_norms(features, centre).max())) for features in (real, generated)) or 1.0
    clouds = [_make_cloud(features, centre, scale) for features in (real, generated)]
    radii = [_squared_radii(cloud, k=k, scale=scale) for cloud in clouds]
    of_real, of_generated = _covered(clouds, radii, scale=scale)
    return PrecisionRecall(float(of_generated.mean()), float(of_real.mean()), k)


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    size = max(1, min(_BLOCK, _BLOCK_VALUES // num_columns))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]


def _squared_norms(features: np.ndarray, centre: np.ndarray) -> np.ndarray:
    rows = _blocks(len(features), features.shape[1])
    return np.concatenate([_squared_distances(features[some], centre[None]) for some in rows])


def _make_cloud(features: np.ndarray, centre: np.ndarray, scale: float) -> _Cloud:
    points = np.empty(features.shape, np.float32)
    for rows in _blocks(*features.shape):
        points[rows] = (features[rows] - centre) / scale
    norms = _squared_norms(points, np.zeros_like(centre)).astype(np.float32)
    return _Cloud(features, jnp.asarray(points), jnp.asarray(norms))


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the last axis, float64; broadcasts. Always summed in one order, so equal pairs have equal distances."""
    difference = np.subtract(x, y, dtype=np.float64)
    return np.square(difference, out=difference).sum(axis=-1)


def _distances_from(feature: np.ndarray, others: np.ndarray) -> np.ndarray:
    rows = _blocks(len(others), others.shape[1])
    return np.concatenate([_squared_distances(others[some], feature[None]) for some in rows])  # [N]


def _tolerance(width: int) -> float:
    """Bounds the error of a float32 squared distance, over |x|^2 + |y|^2.

    Rounding adds up as a random walk does, to sqrt(D) in place of D (Higham and Mary 2019), here with a factor of 4.
    The rest is of the points, their norms and the sum.
    """
    return float((4.0 * np.sqrt(width) + 10.0) * np.finfo(np.float32).eps / 2)


def _squared_radii(cloud: _Cloud, *, k: int, scale: float) -> np.ndarray:
    """The squared distance of each feature to its k-th neighbour in the set: [N] float64."""
    n, width = cloud.features.shape
    num_candidates = min(k + _SPARE, n - 1)
    norms = np.asarray(cloud.norms, np.float64)
    radii = np.empty(n)
    for rows in _blocks(n, n):
        found = _nearest(cloud.points[rows], cloud.norms[rows], rows.start, cloud.points, cloud.norms, num_candidates)
        distances, indices = map(np.asarray, found)  # each [B, candidates]
        exact = _squared_distances(cloud.features[rows][:, None], cloud.features[indices])
        radii[rows] = np.partition(exact, k - 1, axis=1)[:, k - 1]
        # All that are no candidates are at least this far.
        others = (distances[:, -1] - _tolerance(width) * (norms[rows] + norms.max())) * scale**2
        certain = (radii[rows] <= others) | (radii[rows] == 0.0) | (num_candidates == n - 1)
        for i in rows.start + np.flatnonzero(~certain):
            from_i = np.delete(_distances_from(cloud.features[i], cloud.features), i)
            radii[i] = np.partition(from_i, k - 1)[k - 1]
    return radii


@functools.partial(jax.jit, static_argnums=5)
def _nearest(
    block: jax.Array, block_norms: jax.Array, start: jax.Array, points: jax.Array, norms: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """The `count` least squared distances, ascending, and where: [B, count]; the block's own rows begin at `start`."""
    itself = (start + jnp.arange(len(block)))[:, None] == jnp.arange(len(points))[None]
    least, indices = jax.lax.top_k(jnp.where(itself, -jnp.inf, -_products(block, block_norms, points, norms)), count)
    return -least, indices


def _products(x: jax.Array, x_norms: jax.Array, y: jax.Array, y_norms: jax.Array) -> jax.Array:
    dot = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    return x_norms[:, None] + y_norms[None] - 2.0 * dot  # [B, N]


def _covered(clouds: list[_Cloud], radii: list[np.ndarray], *, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Which features of each of the two sets lie in a ball of the other: bool [N], [M]."""
    ours, theirs = clouds
    scaled = [jnp.asarray(squared / scale**2, jnp.float32) for squared in radii]
    sure, possible = ([np.zeros(len(cloud.features), bool) for cloud in clouds] for _ in range(2))
    for rows in _blocks(len(ours.features), len(theirs.features)):
        block = ours.points[rows], ours.norms[rows], scaled[0][rows]
        for total, found in zip(
            (sure, possible), _inside(block, (theirs.points, theirs.norms, scaled[1])), strict=True
        ):
            total[0][rows] = found[0]
            total[1] |= np.asarray(found[1])
    for i, (cloud, other, squared) in enumerate(((ours, theirs, radii[1]), (theirs, ours, radii[0]))):
        for j in np.flatnonzero(possible[i] & ~sure[i]):
            sure[i][j] = np.any(_distances_from(cloud.features[j], other.features) <= squared)
    return sure[0], sure[1]


@jax.jit
def _inside(block: tuple[jax.Array, ...], others: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, jax.Array], ...]:
    """Whether each of the block [B], and of the others [N], lies in a ball of the other side: surely, and possibly.

    Args:
        block: points [B, D], their norms [B] and squared radii [B].
        others: the same of [N].
    """
    (x, x_norms, x_radii), (y, y_norms, y_radii) = block, others
    distances = _products(x, x_norms, y, y_norms)
    error = _tolerance(x.shape[1]) * (x_norms[:, None] + y_norms[None])

    def within(distances: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (distances <= y_radii[None]).any(axis=1), (distances <= x_radii[:, None]).any(axis=0)

    return within(distances + error), within(distances - error)
