"""Turns a data set into arrays: all at once in memory if it fits there, otherwise image by image as it is read."""

import collections
import concurrent.futures
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ddpm_jax.data.decode import BrokenImageError, decode

_log = logging.getLogger(__name__)
_MAX_BROKEN = 0.01  # of all images
_MAX_WAITING_BYTES = 2**29  # read by a scan and not decoded yet: a few kilobytes of .tar.gz can hold as much


class Record(NamedTuple):
    """Holds an image as it is stored, the bytes of a file or pixels (see `decode.decode`), and its class."""

    encoded: bytes | np.ndarray
    label: int


@dataclasses.dataclass(frozen=True)
class Records:
    """Reads the images of a split, without decoding them.

    Attributes:
        size: the number of images.
        class_names: the class of each label; empty if there are no labels.
        name: names image i in messages.
        read: reads image i, from any thread. None if the images can only be read from front to back.
        scan: yields (i, image i) in the order of storage; needed only if `read` is None.
    """

    size: int
    class_names: tuple[str, ...]
    name: Callable[[int], str]
    read: Callable[[int], Record] | None
    scan: Callable[[], Iterator[tuple[int, Record]]] | None = None


class BrokenImages:
    """Collects the broken images encountered so far, by index; threads may share it."""

    def __init__(self, num_images: int):
        """Starts with none of `num_images` broken."""
        self._num_images = num_images
        self._names: dict[int, str] = {}
        self._lock = threading.Lock()

    def __contains__(self, index: int) -> bool:
        """Tells whether image `index` is known to be broken."""
        return index in self._names

    def __len__(self) -> int:
        """Counts the images known to be broken."""
        return len(self._names)

    def add(self, index: int, *, name: str, reason: Exception) -> None:
        """Adds and logs an image, once.

        Raises:
            ValueError: if more than 1 % of all images are now broken.
        """
        with self._lock:
            if index not in self._names:
                self._names[index] = name
                _log.warning("Skipped a broken image, %s: %s.", name, reason)
            if len(self._names) > _MAX_BROKEN * self._num_images:
                first = ", ".join(list(self._names.values())[:3])
                raise ValueError(
                    f"{len(self._names)} of the {self._num_images} images are broken, more than {_MAX_BROKEN:.0%}: "
                    f"{first}{', ...' if len(self._names) > 3 else ''}; the last one is {name}: {reason}."
                )


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Holds or reads the images of one split at one size; `load` makes it.

    Attributes:
        image_shape: (H, W, C).
        class_names: the class of each label; empty if the data set has no classes.
        broken: the broken images encountered so far. In memory they are left out; in a stream the next good image
            replaces each.
        images: uint8 [N, H, W, C] if the data set is in memory, else None.
        labels: int32 [N] if the data set is in memory, else None.
        records: the encoded images if the data set is streamed, else None.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    broken: BrokenImages
    images: np.ndarray | None = None
    labels: np.ndarray | None = None
    records: Records | None = None

    def __len__(self) -> int:
        """Returns N, the length of an epoch."""
        return len(self.images) if self.in_memory else self.records.size

    @property
    def in_memory(self) -> bool:
        """Tells whether `load` has decoded the images; otherwise they are decoded as they are read."""
        return self.images is not None

    @property
    def num_classes(self) -> int:
        """Counts the classes: 1 if the data set has none, as all labels are 0 then."""
        return max(1, len(self.class_names))

    def read_one(self, index: int) -> tuple[np.ndarray, np.int32]:
        """Reads one image, uint8 [H, W, C], and its label; see `read`."""
        if self.in_memory:
            return self.images[index], self.labels[index]
        # Whether an image is broken depends on its bytes alone, so its replacement is the same in every run.
        while True:
            record = None if index in self.broken else self.records.read(index)
            if record is not None:
                try:
                    return decode(record.encoded, image_shape=self.image_shape), np.int32(record.label)
                except BrokenImageError as error:
                    self.broken.add(index, name=self.records.name(index), reason=error)
            index = (index + 1) % len(self)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images in the order of `indices`.

        Args:
            indices: int [n], in [0, N); may repeat.

        Returns:
            uint8 [n, H, W, C] and int32 [n].

        Raises:
            IndexError: if an index is not in [0, N).
            ValueError: if more than 1 % of the images turn out to be broken.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices {indices.min()}..{indices.max()} must lie in 0..{len(self) - 1}.")
        if self.in_memory:
            return self.images[indices], self.labels[indices]
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for row, (image, label) in enumerate(pool.map(self.read_one, indices.tolist())):
                images[row], labels[row] = image, label
        return images, labels


def load_into_memory(records: Records, *, image_shape: tuple[int, int, int]) -> Source:
    """Decodes all images in threads (Pillow releases the GIL) and leaves out the broken ones.

    Raises:
        ValueError: if more than 1 % of the images are broken.
    """
    images = np.empty((records.size, *image_shape), np.uint8)
    labels = np.empty(records.size, np.int32)
    broken = BrokenImages(records.size)

    def decode_into(index: int, record: Record | None) -> None:
        encoded, labels[index] = records.read(index) if record is None else record
        try:
            images[index] = decode(encoded, image_shape=image_shape)
        except BrokenImageError as error:
            broken.add(index, name=records.name(index), reason=error)

    entries = ((i, None) for i in range(records.size)) if records.read else records.scan()
    pending, waiting_bytes = collections.deque(), 0
    # The bar appears after two seconds, and only if stderr is a terminal.
    with (
        tqdm(total=records.size, desc="decoding", unit="img", delay=2.0, disable=None) as progress,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        for entry in entries:
            size = len(entry[1].encoded) if entry[1] else 0
            pending.append((pool.submit(decode_into, *entry), size))
            waiting_bytes += size
            while len(pending) == 256 or waiting_bytes > _MAX_WAITING_BYTES:
                future, size = pending.popleft()
                future.result()
                waiting_bytes -= size
            progress.update()
        for future, _ in pending:
            future.result()
    num_good = _compact(broken, images=images, labels=labels)
    return Source(image_shape, records.class_names, broken, images=images[:num_good], labels=labels[:num_good])


def _compact(broken: BrokenImages, *, images: np.ndarray, labels: np.ndarray) -> int:
    """Moves the good images to the front, in place as a copy could be too large, and returns their number."""
    if not broken:
        return len(images)
    good = [i for i in range(len(images)) if i not in broken]
    for target, i in enumerate(good):
        if target != i:
            images[target], labels[target] = images[i], labels[i]
    return len(good)
