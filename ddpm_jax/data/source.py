"""Turns a data set into arrays: all at once in memory if it fits there, otherwise image by image as it is read."""

import collections
import concurrent.futures
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ddpm_jax.data import fingerprint
from ddpm_jax.data.decode import WHITE, BrokenImageError, decode

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
        keys: the name of each image within the data set, wherever that lies; empty if the images have none.
    """

    size: int
    class_names: tuple[str, ...]
    name: Callable[[int], str]
    read: Callable[[int], Record] | None
    scan: Callable[[], Iterator[tuple[int, Record]]] | None = None
    keys: Sequence[str] = ()


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
        broken: the broken images encountered so far; `read` replaces each by the next good one.
        images: uint8 [n, H, W, C], the n <= N good ones, if the data set is in memory, else None.
        labels: int32 [n] if the data set is in memory, else None.
        records: the encoded images if the data set is streamed, else None.
        background: (red, green, blue) that transparent images are shown on as they are streamed.
        rows: int64 [N], the row of `images` that stands for each image; None if it is its own, as none is broken.
        facts: what `fingerprint` returns, if the data set is in memory, else None.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    broken: BrokenImages
    images: np.ndarray | None = None
    labels: np.ndarray | None = None
    records: Records | None = None
    background: tuple[int, int, int] = WHITE
    rows: np.ndarray | None = None
    facts: fingerprint.Fingerprint | None = None

    def __len__(self) -> int:
        """Returns N, the length of an epoch: of the broken ones, too."""
        if not self.in_memory:
            return self.records.size
        return len(self.images if self.rows is None else self.rows)

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
            row = index if self.rows is None else self.rows[index]
            return self.images[row], self.labels[row]
        # Whether an image is broken depends on its bytes alone, so its replacement is the same in every run.
        while True:
            record = None if index in self.broken else self.records.read(index)
            if record is not None:
                try:
                    image = decode(record.encoded, image_shape=self.image_shape, background=self.background)
                    return image, np.int32(record.label)
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
            rows = indices if self.rows is None else self.rows[indices]
            return self.images[rows], self.labels[rows]
        images = np.empty((len(indices), *self.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for row, (image, label) in enumerate(pool.map(self.read_one, indices.tolist())):
                images[row], labels[row] = image, label
        return images, labels

    def fingerprint(self) -> fingerprint.Fingerprint:
        """Returns a few facts that tell these images from others; see `fingerprint.differences`."""
        return fingerprint_records(self.records) if self.facts is None else self.facts


def fingerprint_records(records: Records) -> fingerprint.Fingerprint:
    """Returns what `Source.fingerprint` returns, without decoding an image."""
    sampled = fingerprint.sampled(records.size)
    if records.read:
        return _facts(records, {i: fingerprint.digest(*records.read(i)) for i in sampled})
    digests = dict.fromkeys(sampled, "")
    return _facts(records, digests | {i: fingerprint.digest(*read) for i, read in records.scan() if i in digests})


def load_into_memory(
    records: Records, *, image_shape: tuple[int, int, int], background: tuple[int, int, int] = WHITE
) -> Source:
    """Decodes all images in threads (Pillow releases the GIL).

    Raises:
        ValueError: if more than 1 % of the images are broken.
    """
    images = np.empty((records.size, *image_shape), np.uint8)
    labels = np.empty(records.size, np.int32)
    broken = BrokenImages(records.size)
    digests = dict.fromkeys(fingerprint.sampled(records.size), "")

    def decode_into(index: int, record: Record | None) -> None:
        encoded, labels[index] = records.read(index) if record is None else record
        if index in digests:
            digests[index] = fingerprint.digest(encoded, labels[index])
        try:
            images[index] = decode(encoded, image_shape=image_shape, background=background)
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
    rows = _compact(broken, images=images, labels=labels) if broken else None
    num_good = records.size - len(broken)
    return Source(
        image_shape, records.class_names, broken, images=images[:num_good], labels=labels[:num_good], rows=rows,
        facts=_facts(records, digests),
    )  # fmt: skip


def _facts(records: Records, digests: dict[int, str]) -> fingerprint.Fingerprint:
    return fingerprint.fingerprint(
        num_images=records.size, class_names=records.class_names, keys=records.keys, digests=digests.values()
    )


def _compact(broken: BrokenImages, *, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Moves the good images to the front, in place as a copy could be too large, and returns `Source.rows`."""
    good = np.array([i for i in range(len(images)) if i not in broken])
    for target, i in enumerate(good):
        if target != i:
            images[target], labels[target] = images[i], labels[i]
    return np.searchsorted(good, np.arange(len(images))) % len(good)  # the next good one, in a circle
