"""Tables of images: drawn in batches of one size, and saved as one picture. Every process calls these alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddpm_jax import images, parallel
from ddpm_jax.runtime.signals import StopRequest


def progress_bar(total: int) -> tqdm:
    """Makes a bar of so many images, which process 0 shows."""
    return tqdm(total=total, unit="image", disable=not parallel.is_primary())


def in_batches(run: Callable, shared: Any, *arrays: Any, batch_size: int, bar: tqdm) -> np.ndarray:
    """Calls `run(shared, *arrays)` in batches of up to `batch_size`, all of one size, so that it is compiled once.

    Raises:
        signals.Stopped: if a signal requested it, on all processes after the same batch.
    """
    n = len(arrays[0])
    size = -(-n // -(-n // batch_size))  # as equal as can be; the last is filled up
    batches = []
    with StopRequest():
        for start in range(0, n, size):
            rows = np.minimum(np.arange(start, start + size), n - 1)
            batches.append(run(shared, *(array[rows] for array in arrays)))
            bar.update(min(size, n - start))
    return np.concatenate(batches)[:n]


def save(path: Path, table: np.ndarray, **labels: Any) -> None:
    """Writes a table of images [rows, columns, H, W, C] uint8 as one picture, labelled as by `images.labelled_grid`."""
    rows, columns = table.shape[:2]
    picture = images.labelled_grid(table.reshape(-1, *table.shape[2:]), columns=columns, **labels)
    parallel.agree(lambda: images.save_png(path, picture))
    print(f"{rows} rows of {columns} images: {path}")
