"""Brings data sets from disk to the uint8 batch of step s.

`load` opens a split of the embedded digits, of a folder or tar of images, or of a TFDS data set, resizes every image to
one size, and keeps all of them in memory if they fit. `batches` yields them from any step on: the global batch of
step s is a function of (seed, s) alone, so a run that stops and resumes has no iterator state to save.

    decode.py     an encoded image -> uint8 [H, W, C]
    digits.py, image_folder.py, tfds.py     the three kinds of data set -> encoded images and labels
    sequence.py   a data set of one's own, from Python
    source.py     images in memory or streamed; broken images
    fingerprint.py    tells one set of images from another
    order.py      (seed, step) -> indices
    batching.py   indices -> batches
    workers.py    the same in processes of their own, for what is streamed
    prepare.py    writes a TFDS data set to disk
"""

import math
from collections.abc import Sequence

from ddpm_jax.data.batching import Batch, batches
from ddpm_jax.data.decode import WHITE, check_geometry, stored_shape
from ddpm_jax.data.digits import open_digits
from ddpm_jax.data.fingerprint import Fingerprint, differences
from ddpm_jax.data.image_folder import open_image_folder
from ddpm_jax.data.order import batch_indices
from ddpm_jax.data.sequence import Items, open_sequence
from ddpm_jax.data.source import BrokenImages, Records, Source, fingerprint_records, load_into_memory
from ddpm_jax.data.tfds import open_tfds

__all__ = [
    "Batch",
    "Fingerprint",
    "Source",
    "batch_indices",
    "batches",
    "differences",
    "fingerprint",
    "from_sequence",
    "load",
    "native_shape",
]


def load(
    name: str,
    *,
    split: str = "train",
    data_dir: str = "",
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    memory_limit_gib: float = 4.0,
    background: tuple[int, int, int] = WHITE,
    holdout: float = 0.0,
) -> Source:
    """Opens one split of a data set.

    Args:
        name: 'digits', 'image_folder', or the name of a TFDS data set, such as 'cifar10' or 'lsun/bedroom'.
        split: 'train', 'test' or any other that the data set has; TFDS also takes slices such as 'train[:90%]'.
        data_dir: for 'image_folder', the folder or tar; for TFDS, the root of prepared data sets ('': its default).
        image_size: (H, W) to crop and resize to; None for that of the first image.
        channels: C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; None for those of the first image.
        memory_limit_gib: a data set that takes more than this, decoded, is streamed.
        background: (red, green, blue) in 0..255 that transparent images are shown on where C has no alpha.
        holdout: of an 'image_folder' without splits, the share that is kept out of 'train' and makes up 'test'.

    Raises:
        ValueError: for an unknown name or split, an impossible size, no images, or more than 1 % broken ones.
        FileNotFoundError: if there is nothing at `data_dir`, or the data set has not been prepared.
    """
    check_geometry(image_size=image_size, channels=channels)
    records = _open(name, split=split, data_dir=data_dir, holdout=holdout)
    return _source(
        records, image_size=image_size, channels=channels, memory_limit_gib=memory_limit_gib, background=background,
        place=data_dir,
    )  # fmt: skip


def from_sequence(
    items: Items,
    *,
    class_names: Sequence[str] = (),
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    memory_limit_gib: float = 4.0,
    background: tuple[int, int, int] = WHITE,
) -> Source:
    """Opens a data set of one's own: any sequence of (image, label) with a length, or a Grain source.

    Args:
        items: see `sequence.open_sequence`; read by several threads at once.
        class_names: the class of each label; empty: there are no classes, and all labels count as 0.
        image_size: as in `load`, like the rest.
        channels: see there.
        memory_limit_gib: see there.
        background: see there.

    Raises:
        ValueError: for no images, elements of another kind, an impossible size, or more than 1 % broken images.
    """
    check_geometry(image_size=image_size, channels=channels)
    return _source(
        open_sequence(items, class_names=class_names), image_size=image_size, channels=channels,
        memory_limit_gib=memory_limit_gib, background=background, place="the sequence",
    )  # fmt: skip


def _source(
    records: Records, *, image_size: tuple[int, int] | None, channels: int | None, memory_limit_gib: float,
    background: tuple[int, int, int], place: str,
) -> Source:  # fmt: skip
    """Decodes the images into memory if they fit there."""
    native = _first_shape(records) if None in (image_size, channels) else ()
    image_shape = (*(image_size or native[:2]), channels or native[2])
    size_gib = records.size * math.prod(image_shape) / 2**30
    if size_gib <= memory_limit_gib:
        return load_into_memory(records, image_shape=image_shape, background=background)
    if records.read is None:
        raise ValueError(
            f"{place!r} is compressed and cannot be streamed, and its {records.size} images take {size_gib:.3g} GiB "
            f"decoded, more than memory_limit_gib={memory_limit_gib:g}: unpack it to a folder or a plain .tar, or "
            "raise the limit."
        )
    return Source(image_shape, records.class_names, BrokenImages(records.size), records=records, background=background)


def native_shape(name: str, *, split: str = "train", data_dir: str = "") -> tuple[int, int, int]:
    """Returns the (H, W, C) of a data set's first image as it is stored; see `load` for the arguments and errors."""
    return _first_shape(_open(name, split=split, data_dir=data_dir))


def fingerprint(name: str, *, split: str = "train", data_dir: str = "", holdout: float = 0.0) -> Fingerprint:
    """Returns `Source.fingerprint` of a split, without decoding an image; arguments and errors as those of `load`."""
    return fingerprint_records(_open(name, split=split, data_dir=data_dir, holdout=holdout))


def _first_shape(records: Records) -> tuple[int, int, int]:
    first = records.read(0) if records.read else next(records.scan())[1]
    return stored_shape(first.encoded)


def _open(name: str, *, split: str, data_dir: str, holdout: float = 0.0) -> Records:
    if name == "image_folder":
        return open_image_folder(data_dir, split=split, holdout=holdout)
    if holdout:
        raise ValueError(f"data.holdout={holdout:g} is for image_folder alone, and {name!r} has splits of its own.")
    if name == "digits":
        return open_digits(split)
    return open_tfds(name, split=split, data_dir=data_dir)
