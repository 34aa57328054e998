"""Tells one set of images from another by a few facts: cheap even of millions, and the same on every host.

They do not depend on where the images lie, in a folder or in a tar, in memory or streamed, or on who decodes them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

_SAMPLED = 64

Fingerprint = dict[str, int | str]


def sampled(num_images: int) -> list[int]:
    """Chooses the images that are looked into, evenly spread."""
    return np.unique(np.linspace(0, num_images - 1, min(num_images, _SAMPLED)).round().astype(int)).tolist()


def digest(encoded: bytes | np.ndarray, label: int) -> str:
    """Hashes an image as it is stored, and its label."""
    content = (encoded.shape, encoded.dtype.str, encoded.tobytes()) if isinstance(encoded, np.ndarray) else (encoded,)
    return _hash(*map(_to_bytes, content), str(label).encode())


def fingerprint(
    *, num_images: int, class_names: Sequence[str], keys: Sequence[str], digests: Iterable[str]
) -> Fingerprint:
    """Puts the facts together, as JSON values by names for people.

    Args:
        num_images: N.
        class_names: of the labels.
        keys: the name of each image within the data set; empty: they have none.
        digests: of the `sampled` images.
    """
    return {
        "number of images": num_images,
        "number of classes": len(class_names),
        "names of the classes": _hash(*map(_to_bytes, class_names)),
        "names of the images": _hash(*map(_to_bytes, keys)),
        "contents": _hash(*map(_to_bytes, digests)),
    }


def differences(old: Mapping[str, int | str], new: Mapping[str, int | str]) -> list[str]:
    """Lists the facts that differ, as `name: old -> new`; empty if these are the same images."""
    return [
        f"{name:.50}: {old.get(name)!s:.50} -> {new.get(name)!s:.50}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    ]


def _to_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")


def _hash(*parts: bytes) -> str:
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(len(part).to_bytes(8))  # where one ends and the next begins counts, too
        hashed.update(part)
    return hashed.hexdigest()[:16]
