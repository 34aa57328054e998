"""Pixels: uint8 0..255 on disk and on the wire, float32 [-1, 1] in the library, and pictures of many images."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MIN_WIDTH = 512  # pixels, of a picture for people
_TEXT, _SMALLEST_TEXT = 13, 12  # pixels, where the picture is narrow
_TEXTS_A_WIDTH = 44  # where it is wide


def from_uint8(pixels: jax.Array) -> jax.Array:
    """Maps uint8 0..255 to float32 [-1, 1]: pixel / 127.5 - 1, as the official code does."""
    return jnp.asarray(pixels, jnp.float32) / 127.5 - 1.0


def to_uint8(x: jax.Array) -> jax.Array:
    """Maps floats in [-1, 1] to the nearest uint8; what lies outside is clipped. The inverse of `from_uint8`."""
    return jnp.round(jnp.clip((x + 1.0) * 127.5, 0.0, 255.0)).astype(jnp.uint8)


def grid(pixels: np.ndarray, *, columns: int = 0, min_size: int = _MIN_WIDTH, gap: int = 1) -> np.ndarray:
    """Lays images out in rows, small ones enlarged by whole pixels so that people can see them.

    Args:
        pixels: [N, H, W, C] uint8.
        columns: images a row; 0 makes the grid as square as it can be.
        min_size: in pixels; a narrower picture is enlarged to about this width.
        gap: white pixels between images, before enlarging.

    Returns:
        [height, width, C] uint8.
    """
    columns = columns or _squarest(len(pixels))
    return _grid(pixels, columns, scale=_scale(columns * (pixels.shape[2] + gap) + gap, min_size), gap=gap)


def labelled_grid(
    pixels: np.ndarray,
    *,
    title: str,
    columns: int = 0,
    above: Sequence[str] = (),
    left: Sequence[str] = (),
    corner: str = "",
    below: Sequence[Sequence[str]] = (),
) -> np.ndarray:
    """Lays images out as `grid` does, with a title and labels in black on white.

    Labels that are wider than a column are made smaller; where they would become too small, the images grow.

    Args:
        pixels: [N, H, W, C] uint8; the picture holds them as they are, enlarged by whole pixels.
        title: broken into lines that fit the width.
        columns: images a row; 0 makes the grid as square as it can be.
        above: a label for each column; () here and below: none.
        left: a label for each row.
        corner: what the labels above are.
        below: a label for each image of each row.

    Returns:
        [height, width, C] uint8.
    """
    columns = columns or _squarest(len(pixels))
    rows = [pixels[i : i + columns] for i in range(0, len(pixels), columns)]
    scale, large, small = _sizes(pixels.shape[2], columns, [*above, *itertools.chain(*below)])
    pad, gap = large // 2, max(scale, small // 2 if below else 0)
    start = pad + (_width([corner, *left], small) + pad if left or corner else 0)
    end = start + scale * (columns * (pixels.shape[2] + 1) - 1)
    centres = [start + scale * (i * (pixels.shape[2] + 1) + pixels.shape[2] / 2) for i in range(columns)]

    def strip(labels: Sequence[tuple[float, str, str]] = (), *, size: int = small, height: int = 0) -> np.ndarray:
        return _strip(labels, size=size, shape=(height or round(1.5 * size), end + pad, pixels.shape[-1]))

    def of_columns(labels: Sequence[str]) -> list[tuple[float, str, str]]:
        return [(centre, label, "mm") for centre, label in zip(centres, labels, strict=True)]

    parts = [strip([(pad, line, "lm")], size=large) for line in _broken(title, end - pad, large)]
    if above:
        parts.append(strip([(start - pad, corner, "rm"), *of_columns(above)]))
    for i, row in enumerate(rows):
        images = _grid(row, columns, scale=scale)[scale:-scale, scale:-scale]  # without the gaps around it
        part = strip([(start - pad, left[i], "rm")] if left else (), height=len(images))
        part[:, start:end] = images
        parts += [part, *([strip(of_columns(below[i]))] if below else []), strip(height=gap)]
    return np.concatenate([strip(height=pad), *parts[:-1], strip(height=pad)])


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


def _squarest(n: int) -> int:
    return int(np.ceil(np.sqrt(n)))


def _scale(width: int, min_width: int) -> int:
    return max(1, round(min_width / width))


def _grid(pixels: np.ndarray, columns: int, *, scale: int, gap: int = 1) -> np.ndarray:
    n, h, w, c = pixels.shape
    rows = -(-n // columns)
    picture = np.full((rows * (h + gap) + gap, columns * (w + gap) + gap, c), 255, np.uint8)
    for i, image in enumerate(pixels):
        top, left = gap + i // columns * (h + gap), gap + i % columns * (w + gap)
        picture[top : top + h, left : left + w] = image
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _sizes(w: int, columns: int, labels: Sequence[str]) -> tuple[int, int, int]:
    """Returns how often pixels are repeated, and the sizes of title and labels with which the labels fit columns."""
    for scale in itertools.count(_scale(columns * (w + 1) + 1, _MIN_WIDTH)):
        column = scale * (w + 1)
        large = max(_TEXT, columns * column // _TEXTS_A_WIDTH)
        small = min(large, int(0.92 * large * column / max(1, _width(labels, large))))
        if small >= _SMALLEST_TEXT:
            break
    return scale, large, small


def _width(labels: Sequence[str], size: int) -> int:
    font = ImageFont.load_default(size)
    return max((int(np.ceil(font.getlength(label))) for label in labels), default=0)


def _broken(text: str, width: int, size: int) -> list[str]:
    """Breaks lines between words to at most a width; a longer word has a line of its own."""
    lines: list[str] = []
    for line in text.splitlines():
        first, *words = line.split(" ")
        lines.append(first)
        for word in words:
            longer = f"{lines[-1]} {word}"
            lines = [*lines[:-1], longer] if _width([longer], size) <= width else [*lines, word]
    return lines


def _strip(labels: Sequence[tuple[float, str, str]], *, size: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Draws labels (x, text, Pillow's anchor) at half the height of a white picture [height, width, C] uint8."""
    height, width, channels = shape
    text = Image.new("L", (width, height), 255)
    for x, label, anchor in labels:
        ImageDraw.Draw(text).text((x, height / 2), label, fill=0, font=ImageFont.load_default(size), anchor=anchor)
    picture = np.repeat(np.asarray(text)[..., None], channels, axis=-1)
    if channels == 4:
        picture[..., 3] = 255  # opaque
    return picture
