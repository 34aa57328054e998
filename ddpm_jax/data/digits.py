"""Opens the embedded data set: 1,797 handwritten digits of 8x8 pixels, from scikit-learn. No disk, no network."""

import numpy as np

from ddpm_jax.data.source import Record, Records

_TEST_EVERY = 5


def open_digits(split: str) -> Records:
    """Opens a split of the digits, their grey levels 0..16 stretched to 0..255.

    Args:
        split: 'test' (every fifth image of each class, 355 in all), 'train' (the other 1,442) or 'all'.

    Raises:
        ValueError: if `split` is none of these.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    numbers = np.arange(len(digits.images))
    rank_in_class = np.array([np.sum(digits.target[:i] == digits.target[i]) for i in numbers])  # 0 for the first one
    held_out = rank_in_class % _TEST_EVERY == _TEST_EVERY - 1
    splits = {"train": numbers[~held_out], "test": numbers[held_out], "all": numbers}
    if split not in splits:
        raise ValueError(f"digits has the splits {', '.join(splits)}, and no {split!r}.")
    chosen = splits[split]
    images = np.round(digits.images[chosen] * 255 / 16).astype(np.uint8)  # [N, 8, 8]
    return Records(
        size=len(images),
        class_names=tuple(str(name) for name in digits.target_names),
        name=lambda i: f"digit {chosen[i]}",
        read=lambda i: Record(images[i], int(digits.target[chosen[i]])),
    )
