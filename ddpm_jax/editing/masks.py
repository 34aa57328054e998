"""Masks: which pixels of an image are drawn anew. The others are known."""

from pathlib import Path

import numpy as np

from ddpm_jax import parallel
from ddpm_jax.data.decode import BrokenImageError, decode

MASKS = ("left", "right", "top", "bottom", "center")


def drawn_anew(mask: str, *, height: int, width: int) -> np.ndarray:
    """Makes a mask, for all processes.

    Args:
        mask: one of `MASKS`, a half of the image, or the box of half its sides at its centre; or the path of an image,
            whose bright pixels are to be drawn anew, and which is brought to this size.
        height, width: of the images, at least 2.

    Returns:
        bool [H, W, 1], true where a pixel is drawn anew.

    Raises:
        FileNotFoundError: if it is neither.
        ValueError: if the file is no image, or marks no pixel.
    """
    row, column = np.mgrid[:height, :width]
    match mask:
        case "left":
            marked = column < width // 2
        case "right":
            marked = column >= width // 2
        case "top":
            marked = row < height // 2
        case "bottom":
            marked = row >= height // 2
        case "center":
            marked = (abs(row - (height - 1) / 2) <= height / 4) & (abs(column - (width - 1) / 2) <= width / 4)
        case _:
            marked = parallel.read_on_primary(lambda: {"mask": _read(Path(mask), height, width)})["mask"]
    return marked.reshape(height, width, 1)


def _read(path: Path, height: int, width: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"--mask={path} is neither a file nor one of {', '.join(MASKS)}.")
    try:
        marked = decode(path.read_bytes(), image_shape=(height, width, 1)) > 127
    except BrokenImageError as error:
        raise ValueError(f"--mask={path} cannot be decoded: {error}.") from error
    if not marked.any():
        raise ValueError(f"--mask={path} marks nothing: what is to be drawn anew must be white.")
    return marked
