"""3x3 convolutions by Winograd's minimal filtering (Lavin and Gray 2016, arXiv:1509.09308), for the CPU.

m x m pixels of the result need (m + 2)^2 products where the plain convolution takes 9 m^2: 2.25 times fewer for m = 2,
4 times fewer for m = 4. Most of the work is then matrix products, one for each of the (m + 2)^2 positions in a tile,
which XLA's CPU backend runs near the speed of the machine. In float32 the error is some 2e-6 of the largest value of
the result for m = 2 and 6e-6 for m = 4; that of the plain convolution is 1e-6.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class _Matrices(NamedTuple):
    """y = A^T ((G g G^T) * (B^T d B)) A for a tile d, a kernel g and m x m results y, as Lavin and Gray write it."""

    image: np.ndarray  # B^T [m + 2, m + 2]
    kernel: np.ndarray  # G [m + 2, 3]
    result: np.ndarray  # A^T [m, m + 2]


_MATRICES = {
    2: _Matrices(
        np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
        np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2,
        np.array([[1, 1, 1, 0], [0, 1, -1, -1]]),
    ),
    4: _Matrices(
        np.array(
            [
                [4, 0, -5, 0, 1, 0],
                [0, -4, -4, 1, 1, 0],
                [0, 4, -4, -1, 1, 0],
                [0, -2, -1, 2, 1, 0],
                [0, 2, -1, -2, 1, 0],
                [0, 4, 0, -5, 0, 1],
            ]
        ),
        np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24,
        np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
    ),
}


def tile(images: tuple[int, ...], kernel: tuple[int, ...]) -> int | None:
    """Chooses the m with which a convolution of stride 1, padded to keep its size, is fastest; None: the plain one is.

    Args:
        images: the shape [B, H, W, in]; of a size that is yet unknown, as `jax.export` has them, no m is.
        kernel: the shape [h, w, in, out].
    """
    b, height, width, _ = images
    if kernel[:2] != (3, 3) or min(kernel[2:]) < 32 or not all(isinstance(size, int) for size in (b, height, width)):
        return None
    for m, fewest_tiles in ((4, 96), (2, 64)):
        if height % m == width % m == 0 and b * (height // m) * (width // m) >= fewest_tiles:
            return m
    return None


@functools.partial(jax.jit, static_argnames="m")
def conv(x: jax.Array, kernel: jax.Array, *, m: int) -> jax.Array:
    """Convolves x [B, H, W, in], padded with zeros, with kernel [3, 3, in, out]; H and W are multiples of m."""
    b, height, width, _ = x.shape
    matrices = _MATRICES[m]
    products = _multiply(_image_tiles(x, m), _kernel_tile(kernel, matrices.kernel), "tpi,tio->tpo")
    return _from_tiles(products, matrices.result, shape=(b, height, width, kernel.shape[-1]))


@functools.partial(jax.jit, static_argnames="m")
def kernel_gradient(x: jax.Array, dy: jax.Array, *, m: int) -> jax.Array:
    """Computes the gradient of `conv` with respect to its kernel, [3, 3, in, out], from dy, that of its result."""
    matrices = _MATRICES[m]
    n = m + 2
    spread = _to_tiles(dy, matrices.result.T, m)
    tiles = _multiply(_image_tiles(x, m), spread, "tpi,tpo->tio")
    d_kernel = jnp.asarray(np.kron(matrices.kernel, matrices.kernel).T, x.dtype) @ tiles.reshape(n * n, -1)
    return d_kernel.reshape(3, 3, x.shape[-1], dy.shape[-1])


def _image_tiles(x: jax.Array, m: int) -> jax.Array:
    """Transforms every tile of the images: [B, H, W, C] -> [(m + 2)^2, tiles, C]."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return _to_tiles(padded, _MATRICES[m].image, m)


def _kernel_tile(kernel: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Transforms the kernel: [3, 3, in, out] -> [(m + 2)^2, in, out]."""
    both = jnp.asarray(np.kron(matrix, matrix), kernel.dtype)
    return (both @ kernel.reshape(9, -1)).reshape(-1, *kernel.shape[2:])


def _multiply(a: jax.Array, b: jax.Array, sums: str) -> jax.Array:
    # Without the barriers XLA repeats the transforms inside the matrix products, or does not run them as such. Each
    # operand has its own: one of both is not linear in either, and could not be transposed.
    return lax.optimization_barrier(jnp.einsum(sums, lax.optimization_barrier(a), lax.optimization_barrier(b)))


def _to_tiles(x: jax.Array, matrix: np.ndarray, step: int) -> jax.Array:
    """Transforms every tile d of x [B, H, W, C] to matrix d matrix^T: [rows of the matrix squared, tiles, C].

    Tiles begin `step` pixels apart.
    """
    n, size = matrix.shape
    b, height, width, c = x.shape
    high, wide = (height - size) // step + 1, (width - size) // step + 1
    rows = [x[:, i : i + (high - 1) * step + 1 : step] for i in range(size)]  # each [B, high, W, C]
    halfway = lax.optimization_barrier(jnp.stack(_combine(matrix, rows)))  # [n, B, high, W, C]
    columns = [halfway[:, :, :, i : i + (wide - 1) * step + 1 : step] for i in range(size)]
    return jnp.stack(_combine(matrix, columns), axis=1).reshape(n * n, b * high * wide, c)


def _from_tiles(tiles: jax.Array, matrix: np.ndarray, *, shape: tuple[int, ...]) -> jax.Array:
    """Transforms tiles t [(m + 2)^2, tiles, C] to m x m results matrix t matrix^T, side by side: [B, H, W, C]."""
    m, n = matrix.shape
    b, height, width, c = shape
    tiles = tiles.reshape(n, n, b, height // m, width // m, c)
    halfway = lax.optimization_barrier(jnp.stack(_combine(matrix, list(tiles)), axis=0))  # [m, n, B, high, wide, C]
    both = jnp.stack(_combine(matrix, [halfway[:, i] for i in range(n)]), axis=4)  # [m, B, high, wide, m, C]
    return both.transpose(1, 2, 0, 3, 4, 5).reshape(shape)


def _combine(matrix: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
    """Sums the parts with the factors of each row, without a product where a factor is 0, 1 or -1."""
    return [sum(_times(factor, part) for factor, part in zip(row, parts, strict=True) if factor) for row in matrix]


def _times(factor: float, part: jax.Array) -> jax.Array:
    return part if factor == 1 else -part if factor == -1 else float(factor) * part
