"""Features of images, the networks that extract them, and fingerprints that tell such networks apart."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Features(NamedTuple):
    """Holds `pool` [B, D] float32, which FID compares, and `logits` [B, K] float32, which the IS needs."""

    pool: jax.Array
    logits: jax.Array


class Extractor(NamedTuple):
    """Holds a network and its weights.

    Attributes:
        name: for people and file names, e.g. 'inception-2015-12-05'.
        fingerprint: `fingerprint(params)`; features of equal names and fingerprints may be compared.
        params: the weights, a pytree of arrays.
        apply: pure (params, pixels uint8 [B, H, W, C]) -> `Features`, to be jitted or pmapped by the caller.
    """

    name: str
    fingerprint: str
    params: Any
    apply: Callable[[Any, jax.Array], Features]

    @property
    def identity(self) -> str:
        """Returns what features have in common that may be compared: name and fingerprint."""
        return f"{self.name} {self.fingerprint}"


def fingerprint(params: Any) -> str:
    """Returns 16 hex digits of the SHA-256 over the names, shapes, dtypes and bytes of all arrays of a pytree."""
    digest = hashlib.sha256()
    leaves = [
        (jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    ]
    for name, array in sorted(leaves, key=lambda leaf: leaf[0]):
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))  # as on every other machine
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]
