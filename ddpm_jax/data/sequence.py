"""Opens a data set of one's own: anything with a length whose elements are an image and its label."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from ddpm_jax.data.decode import pixels
from ddpm_jax.data.source import Record, Records

_IMAGE = np.ndarray | Image.Image | bytes


class Items(Protocol):
    """A list, a Grain `RandomAccessDataSource` or `MapDataset`, a data set of torchvision, ..."""

    def __len__(self) -> int:
        """Returns how many images there are."""

    def __getitem__(self, index: int) -> tuple[np.ndarray | Image.Image | bytes, int]:
        """Returns an image and its label; see `open_sequence`. Several threads ask at once."""


def open_sequence(items: Items, *, class_names: Sequence[str] = ()) -> Records:
    """Opens the images of a sequence.

    Args:
        items: each element is an image, as uint8 pixels [h, w] or [h, w, c], of Pillow's, or the bytes of an image
            file, and its label, an integer.
        class_names: the class of each label; empty: there are no classes, and all labels count as 0.

    Raises:
        ValueError: if it is empty, or its first element is no such pair.
    """
    if not len(items):
        raise ValueError("The sequence has no images.")
    first = items[0]
    if not (isinstance(first, tuple | list) and len(first) == 2 and isinstance(first[0], _IMAGE)):
        raise ValueError(
            "The elements of the sequence must be (image, label), the image uint8 pixels, of Pillow's, or the bytes of "
            f"a file; the first is {first!r:.100}."
        )

    def read(index: int) -> Record:
        image, label = items[index]
        image = pixels(image) if isinstance(image, Image.Image) else image
        if class_names and not 0 <= label < len(class_names):
            raise ValueError(f"The label of image {index} is {label}, of {len(class_names)} classes, from 0.")
        return Record(image, int(label) if class_names else 0)

    return Records(size=len(items), class_names=tuple(class_names), name=lambda i: f"image {i}", read=read)
