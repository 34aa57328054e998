"""Nearest neighbours in pixel space: is a sample new, or a copy of a training image? (Ho et al. 2020, Figures 15, 16.)

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

COPY_RATIO = 1 / 3  # as is usual; see `copy_ratios`

_BLOCK = 1024  # values whose products, each at most 2^14, are summed as floats: up to 2^24 those are exact
_NONE = np.uint32(2**32 - 1)  # the squared distance of no image
_MAX_VALUES = (2**32 - 2) // 255**2  # of an image, so that its squared distances stay below that


class Neighbours(NamedTuple):
    """The k nearest reference images of N queries, the nearest first."""

    distances: np.ndarray  # [N, k] float64, Euclidean over all pixels and channels, in units of 0..255
    indices: np.ndarray  # [N, k] int64, among the references; equally near ones come in their order


def nearest(
    queries: np.ndarray,
    references: Iterable[np.ndarray],
    *,
    k: int,
    crop: int = 0,
    batch_size: int = 1024,
    spread: Callable[[Callable], Callable] = jax.jit,
) -> Neighbours:
    """Finds the k nearest reference images of each query, exactly.

    Args:
        queries: [N, H, W, C] uint8, in host memory.
        references: pieces [M, H, W, C] uint8 of the reference images, in order; each is read once and none kept. All
            but the last should be of one size, as each size is compiled anew. Of CIFAR-10, a piece of 8192 and a
            batch of 1024 take about 0.3 GB of the device.
        k: how many neighbours.
        crop: compare only the square of this side at the centre, as the paper does for CelebA-HQ (100 of 256 pixels,
            about the face); 0: the whole image.
        batch_size: queries at a time.
        spread: what compiles the inner function `(piece, *arrays of a batch)`; `parallel.pmap_batches` uses all
            devices.

    Raises:
        ValueError: if there are fewer than k reference images, or the images do not fit or are too large.
    """
    queries = _flat(queries, crop)  # [N, D]
    squared = np.full((len(queries), k), _NONE, np.uint32)
    indices = np.zeros((len(queries), k), np.int64)
    update, count, size = spread(functools.partial(_update, k=k)), 0, 0
    for piece in references:
        values = _flat(piece, crop)  # [M, D]
        if values.shape[1] != queries.shape[1]:
            raise ValueError(f"Images of {queries.shape[1]} values cannot be compared with some of {values.shape[1]}.")
        size = max(size, len(values))
        padded = np.pad(values, ((0, size - len(values)), (0, 0)))  # the last piece is filled up: no second compilation
        reference = jnp.asarray(padded), len(values)
        for start in range(0, len(queries), batch_size):
            rows = slice(start, start + batch_size)
            found, places = map(np.asarray, update(reference, queries[rows], squared[rows]))  # each [B, k]
            earlier = np.take_along_axis(indices[rows], np.minimum(places, k - 1), axis=1)
            squared[rows], indices[rows] = found, np.where(places < k, earlier, count + places - k)
        count += len(values)
    if count < k:
        raise ValueError(f"There are {count} reference images, fewer than the {k} nearest that are asked for.")
    return Neighbours(np.sqrt(squared.astype(np.float64)), indices)


def copy_ratios(distances: np.ndarray) -> np.ndarray:
    """d_1 / d_2 of each sample, with d_1, d_2 its distances to the two nearest training images; 0 where d_1 = 0.

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
    """How many of the images [N, H, W, C] uint8 equal, in every pixel, an earlier one of them."""
    return len(pixels) - len({hashlib.sha256(image.tobytes()).digest() for image in pixels})


def _flat(pixels: np.ndarray, crop: int) -> np.ndarray:
    """The values to compare, uint8 [N, D]."""
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
    reference: tuple[jax.Array, jax.Array], queries: jax.Array, squared: jax.Array, *, k: int
) -> tuple[jax.Array, jax.Array]:
    """The k least of the squared distances so far and those to a piece, and their places in the two joined.

    Args:
        reference: the piece [M, D] uint8, and how many of its images count.
        queries: [B, D] uint8.
        squared: [B, k] uint32, ascending.
        k: how many to find.

    Returns:
        uint32 [B, k], ascending, and int32 [B, k]: below k, the place in `squared`; from there on, in the piece.
    """
    piece, num_valid = reference
    to_piece = jnp.where(jnp.arange(len(piece)) < num_valid, _squared_distances(queries, piece), _NONE)
    candidates = jnp.concatenate([squared, to_piece], axis=1)  # [B, k + M]

    def take_least(candidates: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        place = jnp.argmin(candidates, axis=1)  # [B]; of equals the first
        each = jnp.arange(len(candidates))
        return candidates.at[each, place].set(_NONE), (candidates[each, place], place)

    _, (least, places) = jax.lax.scan(take_least, candidates, length=k)  # [k, B]
    return least.T, places.T


def _squared_distances(queries: jax.Array, piece: jax.Array) -> jax.Array:
    """|q - r|^2 = |q|^2 + |r|^2 - 2 q.r of [B, D] and [M, D] uint8: exactly, uint32 [B, M]."""

    def blocks(pixels: jax.Array) -> jax.Array:
        centred = pixels.astype(jnp.float32) - 128.0
        padded = jnp.pad(centred, ((0, 0), (0, -centred.shape[1] % _BLOCK)))
        return padded.reshape(len(pixels), -1, _BLOCK).swapaxes(0, 1)  # [D / 1024, N, 1024]

    def add(
        sums: tuple[jax.Array, jax.Array, jax.Array], pair: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], None]:
        q, r = pair
        products = (jnp.square(q).sum(1), jnp.square(r).sum(1), jnp.matmul(q, r.T, precision=jax.lax.Precision.HIGHEST))
        return jax.tree.map(lambda total, x: total + x.astype(jnp.int32), sums, products), None

    shapes = (len(queries),), (len(piece),), (len(queries), len(piece))
    zeros = tuple(jnp.zeros(shape, jnp.int32) for shape in shapes)
    (of_query, of_piece, dot), _ = jax.lax.scan(add, zeros, (blocks(queries), blocks(piece)))
    squared = of_query[:, None] + of_piece[None] - 2 * dot  # may wrap, and is right modulo 2^32
    return jax.lax.bitcast_convert_type(squared, jnp.uint32)
