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
_INFINITY = np.uint32(2**32 - 1)  # a squared distance that no image has
_MAX_VALUES = (2**32 - 2) // 255**2  # of an image, so that its squared distances stay below that


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
        ValueError: if there are fewer than k reference images, or the images do not fit or are too large.
    """
    queries = _flatten(queries, crop)  # [N, D]
    squared = np.full((len(queries), k), _INFINITY, np.uint32)
    indices = np.zeros((len(queries), k), np.int32)
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
            squared[rows], indices[rows] = update(reference, queries[rows], squared[rows], indices[rows])
        count += len(values)
    if count < k:
        raise ValueError(f"There are {count} reference images, fewer than the {k} nearest that are asked for.")
    return Neighbours(np.sqrt(squared.astype(np.float64)), indices.astype(np.int64))


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
    values = pixels.reshape(n, -1)
    if values.shape[1] > _MAX_VALUES:
        raise ValueError(
            f"Images of {values.shape[1]} values are too large to be compared exactly; the most is {_MAX_VALUES}. "
            "Compare a crop of them."
        )
    return values


def _update(
    reference: tuple[jax.Array, jax.Array, jax.Array],
    queries: jax.Array,
    squared: jax.Array,
    indices: jax.Array,
    *,
    k: int,
) -> tuple[jax.Array, jax.Array]:
    """Merges the k nearest so far with a piece of the references.

    Args:
        reference: the piece [M, D] uint8, the index of its first image, and how many of its images are no padding.
        queries: [B, D] uint8.
        squared: [B, k] uint32, the squared distances so far, ascending.
        indices: [B, k] int32, of those images.
        k: how many to find.

    Returns:
        The new `squared` and `indices`.
    """
    piece, first, num_valid = reference
    to_piece = jnp.where(jnp.arange(len(piece)) < num_valid, _squared_distances(queries, piece), _INFINITY)
    rows = jnp.arange(len(queries))

    def take_least(rest: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        column = jnp.argmin(rest, axis=1)  # [B]; of equals the first
        return rest.at[rows, column].set(_INFINITY), (rest[rows, column], column)

    # Not `jax.lax.top_k`, which sorts integers on the CPU and takes 14 times as long.
    _, (squared, columns) = jax.lax.scan(take_least, jnp.concatenate([squared, to_piece], axis=1), length=k)  # [k, B]
    in_piece = jnp.broadcast_to(first + jnp.arange(len(piece)), to_piece.shape)
    return squared.T, jnp.take_along_axis(jnp.concatenate([indices, in_piece], axis=1), columns.T, axis=1)


def _squared_distances(queries: jax.Array, piece: jax.Array) -> jax.Array:
    """Computes |q - r|^2 = |q|^2 + |r|^2 - 2 q.r of [B, D] and [M, D] uint8, exactly: uint32 [B, M]."""
    q, r = (pixels.astype(jnp.float32) - 128.0 for pixels in (queries, piece))
    q_squared, r_squared = (jnp.square(x.astype(jnp.int32)).sum(axis=1) for x in (q, r))
    dot = jnp.zeros((len(q), len(r)), jnp.int32)
    for i in range(0, q.shape[1], _BLOCK):
        product = jnp.matmul(q[:, i : i + _BLOCK], r[:, i : i + _BLOCK].T, precision=jax.lax.Precision.HIGHEST)
        dot += product.astype(jnp.int32)
    squared = q_squared[:, None] + r_squared[None] - 2 * dot  # may wrap, and is right modulo 2^32
    return jax.lax.bitcast_convert_type(squared, jnp.uint32)
