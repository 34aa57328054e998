"""Pixels: uint8 0..255 on disk and on the wire, float32 [-1, 1] in the library, and pictures of many images."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def from_uint8(pixels: jax.Array) -> jax.Array:
    """Maps uint8 0..255 to float32 [-1, 1]: pixel / 127.5 - 1, as the official code does."""
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1.0


def to_uint8(x: jax.Array) -> jax.Array:
    """Maps floats in [-1, 1] to the nearest uint8; what lies outside is clipped. The inverse of `from_uint8`."""
    return jnp.round(jnp.clip((x + 1.0) * 127.5, 0.0, 255.0)).astype(jnp.uint8)


def grid(pixels: np.ndarray, *, columns: int = 0, min_size: int = 512, gap: int = 1) -> np.ndarray:
    """Lays images out in rows, small ones enlarged by whole pixels so that people can see them.

    Args:
        pixels: [N, H, W, C] uint8.
        columns: images a row; 0 makes the grid as square as it can be.
        min_size: in pixels; a narrower picture is enlarged to about this width.
        gap: white pixels between images, before enlarging.

    Returns:
        [height, width, C] uint8.
    """
    n, h, w, c = pixels.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    picture = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        picture[top : top + h, left : left + w] = image
    scale = max(1, round(min_size / picture.shape[1]))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def save_png(path: Path, picture: np.ndarray) -> None:
    """Writes a picture [H, W, C] uint8 as PNG: grey (C = 1), RGB (3) or RGBA (4); of any other C, channel 0 alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _to_pillow(picture).save(path)


def save_animation(path: Path, frames: np.ndarray, *, frame_ms: int = 60, last_ms: int = 2000) -> None:
    """Writes pictures [F, H, W, C] uint8 as an endless animation that pauses on the last; channels as in `save_png`.

    The suffix of `path` chooses the format: `.webp`, which is lossless, or `.gif`, with 256 colours a frame.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = map(_to_pillow, frames)
    durations = [frame_ms] * len(others) + [last_ms]
    first.save(path, save_all=True, append_images=others, duration=durations, loop=0, lossless=True, method=6)


def _to_pillow(picture: np.ndarray) -> Image.Image:
    array = picture if _MODES.get(picture.shape[-1], "L") != "L" else picture[..., 0]
    return Image.fromarray(array)
