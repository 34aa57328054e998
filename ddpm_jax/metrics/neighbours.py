"""Nearest neighbours in pixel space: is a sample new, or a copy of a training image? (Ho et al. 2020, Figures 12, 15.)

Exact, and in integers: distances are taken between uint8 pixels, 0..255. The largest work, 50,000 against 50,000
CIFAR-10 images, is matrix products of one piece of each set at a time.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

COPY_RATIO = 1 / 3  # the usual threshold; see `copy_ratios`

_BLOCK = 1024  # values whose products, each at most 2^14, are summed as floats: up to 2^24 those are exact
_BITS = 24  # of the low one of two words: squared distances of 256x256 images take 34 bits, and devices count in 32
_INFINITY = np.int32(2**31 - 1)  # a high word that no image has


class Neighbours(NamedTuple):
    """Holds the k nearest reference images of N queries, the nearest first."""

    distances: np.ndarray  # [N, k] float64, Euclidean over all pixels and channels, in units of 0..255
    indices: np.ndarray  # [N, k] int64, among the references; equally near ones come in their order


def nearest(
    queries: np.ndarray,
    references: Iterable[np.ndarray],
    *,
    k: int,
    crop: int = 0,
    batch_size: int = 1024,
    map_fn: Callable[[Callable], Callable] = jax.jit,
) -> Neighbours:
    """Finds the k nearest reference images of each query, exactly.

    Args:
        queries: [N, H, W, C] uint8, in host memory.
        references: pieces [M, H, W, C] uint8 of the reference images, in order; each is read once and none kept. All
            but the last should be of one size, as each size is compiled anew. For CIFAR-10, a piece of 8192 and a
            batch of 1024 take about 0.3 GB of device memory.
        k: how many neighbours.
        crop: compare only the square of this side at the centre, as the paper does for CelebA-HQ (100 of 256 pixels,
            around the face); 0: the whole image.
        batch_size: queries at a time.
        map_fn: compiles a function, which is then called as `map_fn(function)(piece, *arrays of a batch)`;
            `parallel.map_batches` uses all devices.

    Raises:
        ValueError: if there are fewer than k reference images, or the images do not fit.
    """
    queries = _flatten(queries, crop)  # [N, D]
    high = np.full((len(queries), k), _INFINITY)
    low, indices = (np.zeros((len(queries), k), np.int32) for _ in range(2))
    update, count, size = map_fn(functools.partial(_update, k=k)), 0, 0
    for piece in references:
        values = _flatten(piece, crop)  # [M, D]
        if values.shape[1] != queries.shape[1]:
            raise ValueError(f"Images of {queries.shape[1]} values cannot be compared with some of {values.shape[1]}.")
        size = max(size, len(values))
        padded = np.pad(values, ((0, size - len(values)), (0, 0)))  # the last piece is filled up: no second compilation
        reference = jnp.asarray(padded), np.int32(count), np.int32(len(values))
        for start in range(0, len(queries), batch_size):
            rows = slice(start, start + batch_size)
            nearest_so_far = high[rows], low[rows], indices[rows]
            high[rows], low[rows], indices[rows] = update(reference, queries[rows], *nearest_so_far)
        count += len(values)
    if count < k:
        raise ValueError(f"There are {count} reference images, fewer than the {k} nearest that are asked for.")
    squared = high.astype(np.float64) * 2**_BITS + low
    return Neighbours(np.sqrt(squared), indices.astype(np.int64))


def copy_ratios(distances: np.ndarray) -> np.ndarray:
    """Computes d_1 / d_2, a sample's distances to its two nearest training images; 0 where d_1 = 0.

    A sample is a copy where this is below `COPY_RATIO`; the rate of those is how often a model repeats its training
    set. The criterion is relative, as a plain image (a face, a clear sky) is near to many others without being a copy
    of any. It does not see a near copy of an image that is in the training set twice.

    Args:
        distances: [N, k] of `nearest` among the training images, k at least 2.

    Returns:
        float64 [N] in [0, 1].
    """
    first, second = distances[:, 0], distances[:, 1]
    return np.divide(first, second, out=np.zeros_like(first), where=first > 0.0)


def num_repeats(pixels: np.ndarray) -> int:
    """Counts the images among [N, H, W, C] uint8 that equal an earlier one in every pixel."""
    return len(pixels) - len({hashlib.sha256(image.tobytes()).digest() for image in pixels})


def _flatten(pixels: np.ndarray, crop: int) -> np.ndarray:
    """Returns the values to compare, uint8 [N, D]."""
    n, h, w, _ = pixels.shape
    if pixels.dtype != np.uint8 or crop > min(h, w):
        raise ValueError(
            f"Images to compare must be uint8 and at least {crop} wide and high; got {pixels.dtype} {h}x{w}."
        )
    if crop:
        top, left = (h - crop) // 2, (w - crop) // 2
        pixels = pixels[:, top : top + crop, left : left + crop]
    return pixels.reshape(n, -1)


def _update(
    reference: tuple[jax.Array, jax.Array, jax.Array],
    queries: jax.Array,
    high: jax.Array,
    low: jax.Array,
    indices: jax.Array,
    *,
    k: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Merges the k nearest so far with a piece of the references.

    Args:
        reference: the piece [M, D] uint8, the index of its first image, and how many of its images are no padding.
        queries: [B, D] uint8.
        high, low: [B, k] int32, the squared distances so far in two words (`_squared_distances`), ascending.
        indices: [B, k] int32, of those images.
        k: how many to find.

    Returns:
        The new `high`, `low` and `indices`.
    """
    piece, first, num_valid = reference
    high_to_piece, low_to_piece = _squared_distances(queries, piece)
    high_to_piece = jnp.where(jnp.arange(len(piece)) < num_valid, high_to_piece, _INFINITY)
    high, low = jnp.concatenate([high, high_to_piece], axis=1), jnp.concatenate([low, low_to_piece], axis=1)
    rows, columns = jnp.arange(len(queries)), jnp.broadcast_to(jnp.arange(high.shape[1], dtype=jnp.int32), high.shape)

    def take_least(rest: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        least = jax.lax.reduce((rest, low, columns), (_INFINITY,) * 3, _lesser, dimensions=(1,))  # [B] each
        return rest.at[rows, least[2]].set(_INFINITY), least

    # Not `jax.lax.top_k`, which sorts integers on the CPU and takes 14 times as long.
    _, (high, low, columns) = jax.lax.scan(take_least, high, length=k)  # [k, B]
    in_piece = jnp.broadcast_to(first + jnp.arange(len(piece), dtype=jnp.int32), high_to_piece.shape)
    return high.T, low.T, jnp.take_along_axis(jnp.concatenate([indices, in_piece], axis=1), columns.T, axis=1)


def _lesser(a: tuple[jax.Array, ...], b: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """Chooses between two of (high word, low word, column): of equals the first column."""
    (high_a, low_a, column_a), (high_b, low_b, column_b) = a, b
    low_is_less = (low_a < low_b) | ((low_a == low_b) & (column_a < column_b))
    is_less = (high_a < high_b) | ((high_a == high_b) & low_is_less)
    return tuple(jnp.where(is_less, x, y) for x, y in zip(a, b, strict=True))


def _squared_distances(queries: jax.Array, piece: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes |q - r|^2 = |q|^2 + |r|^2 - 2 q.r of [B, D] and [M, D] uint8, exactly.

    Returns:
        [B, M] int32 each: the high word, in units of 2^24, and the low one, below 2^24.
    """

    def of_block(q: jax.Array, r: jax.Array) -> jax.Array:  # below 2^27
        q, r = (pixels.astype(jnp.float32) - 128.0 for pixels in (q, r))
        product = jnp.matmul(q, r.T, precision=jax.lax.Precision.HIGHEST).astype(jnp.int32)
        q_squared, r_squared = (jnp.square(x.astype(jnp.int32)).sum(axis=1, dtype=jnp.int32) for x in (q, r))
        return q_squared[:, None] + r_squared[None] - 2 * product

    def add(i: jax.Array, words: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        high, low = words
        low += of_block(*(jax.lax.dynamic_slice_in_dim(x, i * block, block, axis=1) for x in (queries, piece)))
        return high + (low >> _BITS), low & (2**_BITS - 1)

    block = min(_BLOCK, queries.shape[1])
    to_fill = -queries.shape[1] % block  # both with the same value: no distance
    queries, piece = (jnp.pad(x, ((0, 0), (0, to_fill))) for x in (queries, piece))
    zero = jnp.zeros((len(queries), len(piece)), jnp.int32)
    return jax.lax.fori_loop(0, queries.shape[1] // block, add, (zero, zero))
