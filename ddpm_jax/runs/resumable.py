"""Long work on many rows, batch by batch into a file, that continues where a signal or a kill stopped it."""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddpm_jax import parallel
from ddpm_jax.runs.trained_model import are_same
from ddpm_jax.runtime import files, foreign_files
from ddpm_jax.runtime.signals import Stopped, StopRequest


class ResumableArray:
    """An array [N, ...] that is filled batch by batch, in `<path>.partial.npy`; `<path>.partial.json` says how far.

    It also holds a checksum of the rows that are done, so that damage is noticed before they are continued.

    Every process makes one and calls the same methods. Process 0 alone holds the rows and the files, and keeps other
    commands away from them until they are removed, or it ends.

    Args:
        path: of the file that the rows are for; its suffix is replaced. None: the rows are kept in memory.
        settings: JSON values that the rows depend on.
        shape: (N, ...).
        dtype: of the array.
        or_unsigned: takes rows begun before settings held the fingerprint of the weights for rows of these; see
            `TrainedModel.owns`.

    Attributes:
        array: the rows on process 0; None on the others.
        settings: those given, and the shape.

    Raises:
        ValueError: if the rows there were begun with other settings or are damaged, or another command is filling them.
        OSError: if the disk has no room for them.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        settings: dict[str, Any],
        shape: tuple[int, ...],
        dtype: type,
        or_unsigned: bool = False,
    ):
        self.file = path and path.with_suffix(".partial.npy")
        self._state = path and path.with_suffix(".partial.json")
        self.settings = settings | {"shape": list(shape)}
        self._or_unsigned = or_unsigned
        self._num_rows = shape[0]
        self._checksum = hashlib.sha256()  # of the rows that are done
        self._lock = contextlib.ExitStack()
        self.array: np.ndarray | None = None
        self._done = parallel.agree(lambda: self._open(shape, dtype))

    def _open(self, shape: tuple[int, ...], dtype: type) -> int:
        """Opens the file and returns how many rows are done."""
        done = 0
        if self.file is None:
            self.array = np.empty(shape, dtype)
            return done
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self._lock.enter_context(
            files.locked(
                self._lock_file, problem=f"{self.file} is being filled by another command",
                way_out="choose another path", reentrant=True,
            )
        )  # fmt: skip
        if self._state.is_file() and self.file.is_file():
            with foreign_files.reading(self._state, f"does not say how much of {self.file.name} is done: delete both"):
                state = json.loads(self._state.read_text())
                begun_with, done, checksum = state["settings"], state["done"], state.get("rows_sha256")
                if type(done) is not int or not 0 < done <= self._num_rows:
                    raise ValueError(f"{done} of {self._num_rows}")
            if not are_same(begun_with, self.settings, or_unsigned=self._or_unsigned):
                raise ValueError(
                    f"{self.file} holds what another command has not finished, with settings {begun_with}. "
                    "Finish that, delete it, or choose another path."
                )
            with foreign_files.reading(self.file, "is damaged: delete it"):
                self._check_rows(done, checksum, shape=shape, dtype=dtype)
        else:
            self._state.unlink(missing_ok=True)  # it says nothing of the rows that come now
        try:
            self.array = _map(self.file, fresh=not done, shape=shape, dtype=dtype)
        except OSError:
            if not done:
                self.remove()
            raise
        return done

    def _check_rows(self, done: int, checksum: str | None, *, shape: tuple[int, ...], dtype: type) -> None:
        """Refuses rows that are not those that were written; where it was not noted what those were, all are taken.

        Raises:
            ValueError: for them.
        """
        array = np.load(self.file, mmap_mode="r", allow_pickle=False)
        if (array.shape, array.dtype) != (shape, dtype):
            raise ValueError(f"it holds {array.dtype} {list(array.shape)}")
        self._checksum.update(array[:done])
        if checksum not in (None, self._checksum.hexdigest()):
            raise ValueError(f"its first {done} rows are not as they were written")

    @property
    def _lock_file(self) -> Path:
        return self.file.with_suffix(".lock")

    def fill(self, compute: Callable[[np.ndarray], np.ndarray], *, batch_size: int) -> None:
        """Computes the rows that are missing, with a progress bar.

        Args:
            compute: row numbers [B] -> rows [B, ...], called alike on all processes. The last batch is whole too, for
                the sake of one compilation: numbers from N on may come, and their rows are dropped.
            batch_size: B.

        Raises:
            Stopped: if a signal requested it, after the batch in hand, or within it where `compute` raises it.
        """
        if self._done:
            print(f"Continuing after {self._done} of {self._num_rows} images.")
        with (
            StopRequest() as stop,
            tqdm(
                total=self._num_rows, initial=self._done, unit="image", smoothing=0.0,
                disable=self.file is None or not parallel.is_primary(),
            ) as bar,
            contextlib.suppress(Stopped),  # of what computes, which checks the same request
        ):  # fmt: skip
            self._bar, self._batch_size = bar, batch_size
            while self._done < self._num_rows and not stop.agreed_code:
                rows = compute(np.arange(self._done, self._done + batch_size))
                count = min(batch_size, self._num_rows - self._done)
                parallel.raise_on_all(lambda rows=rows, count=count: self._write(np.asarray(rows)[:count]))
                self._done += count
                bar.update(self._done - bar.n)
        if self._done < self._num_rows:
            message = f"Stopped after {self._done} of {self._num_rows} images; the same command continues."
            raise Stopped(message, stop.agreed_code)

    def report(self, share: float) -> None:
        """Moves the progress bar of `fill` by a share of the batch in hand, in (0, 1]: for what computes to call."""
        count = min(self._batch_size, self._num_rows - self._done)
        self._bar.update(self._done + int(share * count) - self._bar.n)

    def _write(self, rows: np.ndarray) -> None:
        if self.array is None:
            return
        done = slice(self._done, self._done + len(rows))
        self.array[done] = rows
        if self.file is not None:
            self.array.flush()
            self._checksum.update(self.array[done])
            state = {"done": done.stop, "rows_sha256": self._checksum.hexdigest(), "settings": self.settings}
            files.write_atomically(self._state, json.dumps(state) + "\n")

    def remove(self) -> None:
        """Deletes the files, when the rows have gone where they belong."""
        if self.file is not None and parallel.is_primary():
            for path in (self.file, self._state, self._lock_file):
                path.unlink(missing_ok=True)
            self._lock.close()


def _map(file: Path, *, fresh: bool, shape: tuple[int, ...], dtype: type) -> np.memmap:
    """Maps an array, for which the disk has given all its room: a page without it would end the process by SIGBUS.

    Raises:
        OSError: if it has not enough.
    """
    try:
        array = np.lib.format.open_memmap(file, mode="w+" if fresh else "r+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with file.open("r+b") as opened:
                os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
    except OSError as error:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raise OSError(
            f"{file} takes {size / 2**20:,.1f} MiB, and the disk does not give them: {error.strerror}. Make room, or "
            "choose another path."
        ) from error
    return array
