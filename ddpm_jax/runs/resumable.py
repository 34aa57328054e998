"""Long work on many rows, batch by batch into a file, that continues where a signal or a kill stopped it."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddpm_jax import parallel
from ddpm_jax.runtime import files
from ddpm_jax.runtime.signals import Stopped, StopRequest


class ResumableArray:
    """An array [N, ...] that is filled batch by batch, in `<path>.partial.npy`; `<path>.partial.json` says how far.

    Every process makes one and calls the same methods. Process 0 alone holds the rows and the files.

    Args:
        path: of the file that the rows are for; its suffix is replaced. None: the rows are kept in memory.
        settings: JSON values that the rows depend on.
        shape: (N, ...).
        dtype: of the array.

    Attributes:
        array: the rows on process 0; None on the others.

    Raises:
        ValueError: if the rows there were begun with other settings.
    """

    def __init__(self, path: Path | None, *, settings: dict[str, Any], shape: tuple[int, ...], dtype: type):
        self.file = path and path.with_suffix(".partial.npy")
        self._state = path and path.with_suffix(".partial.json")
        self._settings = settings | {"shape": list(shape)}
        self._num_rows = shape[0]
        self.array: np.ndarray | None = None
        self._done = parallel.agree(lambda: self._open(shape, dtype))

    def _open(self, shape: tuple[int, ...], dtype: type) -> int:
        """Opens the file and returns how many rows are done."""
        done = 0
        if self.file is None:
            self.array = np.empty(shape, dtype)
            return done
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self._state.is_file() and self.file.is_file():
            state = json.loads(self._state.read_text())
            if state["settings"] != self._settings:
                raise ValueError(
                    f"{self.file} holds what another command has not finished, with settings {state['settings']}. "
                    "Finish that, delete it, or choose another path."
                )
            done = state["done"]
        self.array = np.lib.format.open_memmap(self.file, mode="r+" if done else "w+", dtype=dtype, shape=shape)
        return done

    def fill(self, compute: Callable[[np.ndarray], np.ndarray], *, batch_size: int) -> None:
        """Computes the rows that are missing, with a progress bar.

        Args:
            compute: row numbers [B] -> rows [B, ...], called alike on all processes. The last batch is whole too, for
                the sake of one compilation: numbers from N on may come, and their rows are dropped.
            batch_size: B.

        Raises:
            Stopped: if a signal requested it, after the batch in hand.
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
            while self._done < self._num_rows and not stop.agreed_code:
                rows = compute(np.arange(self._done, self._done + batch_size))
                count = min(batch_size, self._num_rows - self._done)
                parallel.raise_on_all(lambda rows=rows, count=count: self._write(np.asarray(rows)[:count]))
                self._done += count
                bar.update(count)
        if self._done < self._num_rows:
            message = f"Stopped after {self._done} of {self._num_rows} images; the same command continues."
            raise Stopped(message, stop.agreed_code)

    def _write(self, rows: np.ndarray) -> None:
        if self.array is None:
            return
        self.array[self._done : self._done + len(rows)] = rows
        if self.file is not None:
            self.array.flush()
            state = {"done": self._done + len(rows), "settings": self._settings}
            files.write_atomically(self._state, json.dumps(state) + "\n")

    def remove(self) -> None:
        """Deletes the files, when the rows have gone where they belong."""
        if self.file is not None and self.array is not None:
            self.file.unlink()
            self._state.unlink()
