"""Yields the endless stream of batches, from any step on."""

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.data import workers
from ddpm_jax.data.order import batch_indices, indices_at
from ddpm_jax.data.source import Source

_NUM_THREADS = min(16, 4 + (os.cpu_count() or 1))  # some wait for the disk while others decode


class Batch(NamedTuple):
    """Holds this process's rows of a global batch: uint8 [b, H, W, C] and int32 [b]."""

    images: np.ndarray
    labels: np.ndarray


def batches(
    source: Source,
    *,
    seed: int = 0,
    batch_size: int = 128,
    start_step: int = 0,
    num_steps: int | None = None,
    rows: slice = slice(None),
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Yields the batches of step `start_step` and of those after it.

    The global batch of a step is a function of `seed` and the step alone (see `order`), in memory or streamed.
    Closing the iterator stops the threads or processes that read ahead.

    Args:
        source: from `load`.
        seed: determines the order; at least 0.
        batch_size: B, the size of the global batch, by default the paper's; may be larger than the data set.
        start_step: the first step, at least 0.
        num_steps: the number of batches; None for no end.
        rows: the rows of the global batch to read: a process reads only its own.
        num_workers: the processes that read a streamed data set ahead, with the same result; 0: threads of this one.
            Each imports the main module, so a script must ask for batches under `if __name__ == "__main__":`.

    Raises:
        ValueError: at once if an argument is out of range; while reading if more than 1 % of the images are broken.
        ChildProcessError: while reading, if a worker process dies.
    """
    if num_workers < 0:
        raise ValueError(f"num_workers={num_workers} must be 0 or more.")
    if num_steps is not None and num_steps < 0:
        raise ValueError(f"num_steps={num_steps} must be 0 or more, or None for no end.")
    batch_indices(len(source), seed=seed, step=start_step, batch_size=batch_size)  # checks the arguments now
    local_rows = np.arange(batch_size, dtype=np.int64)[rows]  # [b]
    if not local_rows.size:
        raise ValueError(f"rows={rows} selects nothing from a batch of {batch_size}.")
    steps = itertools.count(start_step) if num_steps is None else range(start_step, start_step + num_steps)
    if source.in_memory:
        return (
            Batch(*source.read(batch_indices(len(source), seed=seed, step=step, batch_size=batch_size)[rows]))
            for step in steps
        )
    first_positions = start_step * batch_size + local_rows  # [b], in the endless sequence
    order = dict(seed=seed, positions=first_positions, stride=batch_size, num_steps=num_steps)
    return _read_by_workers(source, **order, num_workers=num_workers) if num_workers else _streamed(source, **order)


def _read_by_workers(source: Source, **arguments: Any) -> Iterator[Batch]:
    with contextlib.closing(workers.read(source, **arguments)) as read:
        yield from itertools.starmap(Batch, read)


def _streamed(
    source: Source, *, seed: int, positions: np.ndarray, stride: int, num_steps: int | None
) -> Iterator[Batch]:
    """Yields the batches at `positions`, `positions + stride`, ... of the sequence; Grain's threads read ahead."""
    import grain

    def element(i: int) -> Batch:
        step, row = divmod(i, len(positions))
        position = positions[row : row + 1] + step * stride  # [1]
        index = indices_at(position, num_images=len(source), seed=seed)[0]
        return Batch(*source.read_one(int(index)))

    num_elements = sys.maxsize if num_steps is None else num_steps * len(positions)
    read_ahead = grain.ReadOptions(num_threads=_NUM_THREADS, prefetch_buffer_size=max(_NUM_THREADS, 2 * len(positions)))
    dataset = grain.MapDataset.range(num_elements).map(element).to_iter_dataset(read_ahead)
    iterator = iter(dataset.batch(len(positions), drop_remainder=True))
    try:
        yield from iterator
    finally:
        iterator.close()
