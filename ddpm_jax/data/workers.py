"""Reads a streamed data set in worker processes, where the interpreter's lock would keep threads waiting.

Grain starts the processes and brings their batches back through shared memory. Worker w of n reads whole batches, those
w, w + n, w + 2 n, ... after the first, so that the order and the bits are those of one process. What is known of broken
images stays in the process that asks for batches: each batch comes with those that were met while it was read.
"""

import dataclasses
import logging
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

import numpy as np

from ddpm_jax.data.order import indices_at
from ddpm_jax.data.source import Source
from ddpm_jax.runtime import foreign_files

_BATCHES_AHEAD = 1  # of each worker; with those on their way about four lie in shared memory


class _Met:
    """Stands for `BrokenImages` in a worker: notes broken images, of which another process keeps count."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self.new: list[tuple[int, str]] = []

    def __contains__(self, index: int) -> bool:
        return index in self._known

    def add(self, index: int, *, name: str, reason: Exception) -> None:
        """Notes an image."""
        self._known.add(index)
        self.new.append((index, str(reason)))


class _ReadBatch:
    """Reads the batch at `positions + step * stride` of the endless sequence, in the process that it was sent to."""

    def __init__(self, source: Source, *, seed: int, positions: np.ndarray, stride: int):
        records = dataclasses.replace(source.records, keys=(), scan=None)
        self._source = dataclasses.replace(source, records=records, broken=_Met())
        self._seed, self._positions, self._stride = seed, positions, stride

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, str]]]:
        positions = self._positions + step * self._stride
        indices = indices_at(positions, num_images=len(self._source), seed=self._seed)
        images = np.empty((len(indices), *self._source.image_shape), np.uint8)
        labels = np.empty(len(indices), np.int32)
        try:
            for row, index in enumerate(indices.tolist()):
                images[row], labels[row] = self._source.read_one(index)
        except (OSError, ValueError):
            raise
        except Exception as error:  # of any class, and one that cannot be pickled would never arrive
            raise RuntimeError(f"{type(error).__name__}: {foreign_files.cause(error)}") from error
        met, self._source.broken.new = self._source.broken.new, []
        return images, labels, met


def read(
    source: Source, *, seed: int, positions: np.ndarray, stride: int, num_steps: int | None, num_workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images and labels at `positions`, `positions + stride`, ... of the endless sequence.

    Closing the iterator ends the processes.

    Args:
        source: a streamed one.
        seed: determines the order.
        positions: int64 [b], of the first batch.
        stride: from each batch to the next.
        num_steps: the number of batches; None for no end.
        num_workers: the processes, at least 1.

    Yields:
        uint8 [b, H, W, C] and int32 [b].

    Raises:
        ValueError: if more than 1 % of the images turn out to be broken.
        ChildProcessError: if a process dies; what goes wrong in reading is raised as it would be in this process.
    """
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain hands its flags to the processes
        flags.FLAGS.mark_as_parsed()
    batches = grain.MapDataset.range(sys.maxsize if num_steps is None else num_steps)
    batches = batches.map(_ReadBatch(source, seed=seed, positions=positions, stride=stride))
    # In a worker no threads: a batch as a whole is read ahead by the process.
    ahead = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=_BATCHES_AHEAD)
    iterator = iter(batches.to_iter_dataset(ahead).mp_prefetch(options, worker_init_fn=_begin))
    try:
        for images, labels, met in iterator:
            for index, reason in met:
                source.broken.add(index, name=source.records.name(index), reason=reason)
            yield np.array(images), np.array(labels)  # copies: the shared memory goes back at once
    except RuntimeError as error:
        if code := re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error)):
            raise ChildProcessError(_obituary(int(code[1]))) from error
        raise
    finally:
        iterator.close()


def _begin(worker: int, num_workers: int) -> None:
    """Prepares a worker process."""
    # Ctrl-C and a batch system signal the whole group, and the process that asked for batches decides when to stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if worker:
        logging.disable(logging.WARNING)  # what is said once a process is said once
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _obituary(exit_code: int) -> str:
    """Says how a worker process died, and what can be done."""
    if exit_code >= 0:
        return f"A process that reads images (data.num_workers) ended with exit code {exit_code}; why stands above."
    hint = {
        -signal.SIGKILL: ": by someone, or by the system for want of memory; fewer workers take less",
        -signal.SIGBUS: ": there is too little shared memory (/dev/shm) for the batches; allow more, or fewer workers",
    }
    name = signal.Signals(-exit_code).name
    return f"A process that reads images (data.num_workers) was killed, {name}{hint.get(exit_code, '')}."
