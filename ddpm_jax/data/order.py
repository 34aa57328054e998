"""Orders the images: says which of them the global batch of step s holds.

The images of all steps form one endless sequence, epoch after epoch, and the batch of step s is its positions
s * B to (s + 1) * B - 1. Each epoch is a permutation that depends on (seed, epoch) alone, so any step can be
computed without those before it, nothing needs saving, and an epoch visits each image once. Batches may straddle
epochs.
"""

import functools

import numpy as np


@functools.lru_cache(maxsize=4)  # Threads that read ahead past the end of an epoch need two at a time.
def _permutation(num_images: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of one epoch: int64 [num_images], cached, so callers must not change it."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(num_images)


def indices_at(positions: np.ndarray, *, num_images: int, seed: int) -> np.ndarray:
    """Returns the images at these positions of the endless sequence.

    Args:
        positions: int64 [n], each at least 0.
        num_images: N, the length of an epoch.
        seed: determines the order; at least 0.

    Returns:
        int64 [n], in [0, N).

    Raises:
        ValueError: if there are no images, or `seed` or a position is negative.
    """
    if num_images < 1:
        raise ValueError(f"num_images={num_images} must be at least 1: there is nothing to draw a batch from.")
    if seed < 0:
        raise ValueError(f"seed={seed} must be 0 or more.")
    if positions.size and positions.min() < 0:
        raise ValueError(f"position {positions.min()} must be 0 or more: steps are counted from 0.")
    epochs, offsets = np.divmod(positions, num_images)
    indices = np.empty_like(positions)
    for epoch in np.unique(epochs):
        in_epoch = epochs == epoch
        indices[in_epoch] = _permutation(num_images, seed, int(epoch))[offsets[in_epoch]]
    return indices


def batch_indices(num_images: int, *, seed: int, step: int, batch_size: int) -> np.ndarray:
    """Returns the images of the global batch of `step`: int64 [batch_size], a function of the arguments alone.

    Raises:
        ValueError: if `num_images` or `batch_size` is below 1, or `seed` or `step` is negative.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    positions = step * batch_size + np.arange(batch_size, dtype=np.int64)  # [batch_size]
    return indices_at(positions, num_images=num_images, seed=seed)
