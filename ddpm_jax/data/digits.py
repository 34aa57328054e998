"""The embedded data set: 1,797 handwritten digits of 8x8 pixels, from scikit-learn. Needs no disk and no network."""

import numpy as np

from ddpm_jax.data.source import Record, Records


def open_digits(split: str) -> Records:
    """All digits, grey levels 0..16 stretched to 0..255; there is one split, 'train'.

    Raises:
        ValueError: for another split.
    """
    if split != "train":
        raise ValueError(f"digits has one split, 'train', and no {split!r}.")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)  # [1797, 8, 8]
    return Records(
        size=len(images),
        class_names=tuple(str(name) for name in digits.target_names),
        name=lambda i: f"digit {i}",
        read=lambda i: Record(images[i], int(digits.target[i])),
    )
