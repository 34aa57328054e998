"""Long work on many rows, batch by batch into a file, that continues where a signal or a kill stopped it."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddpm_jax.runtime import files
from ddpm_jax.runs import workdir
from ddpm_jax.runtime.signals import Stopped, StopRequest


class Rows:
    """An array [N, ...] that is filled batch by batch, in `<path>.partial.npy`; `<path>.partial.json` says how far.

    Args:
        path: of what the rows are for; its suffix is replaced.
        settings: JSON values that the rows depend on.
        shape: (N, ...).
        dtype: of the array.

    Raises:
        ValueError: if the rows there were begun with other settings.
    """

    def __init__(self, path: Path, *, settings: dict[str, Any], shape: tuple[int, ...], dtype: type):
        self.file, self._state = path.with_suffix(".partial.npy"), path.with_suffix(".partial.json")
        self._settings = settings | {"shape": list(shape)}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._done = 0
        if self._state.is_file() and self.file.is_file():
            state = json.loads(self._state.read_text())
            if state["settings"] != self._settings:
                raise ValueError(
                    f"{self.file} holds what another command has not finished, with settings {state['settings']}. "
                    "Finish that, delete it, or choose another path."
                )
            self._done = state["done"]
        mode = "r+" if self._done else "w+"
        self.array = np.lib.format.open_memmap(self.file, mode=mode, dtype=dtype, shape=shape)

    def fill(self, compute: Callable[[np.ndarray], np.ndarray], *, batch_size: int) -> None:
        """Computes the rows that are missing, with a progress bar.

        Args:
            compute: row numbers [B] -> rows [B, ...]. The last batch is whole too, for the sake of one compilation:
                numbers from N on may come, and their rows are dropped.
            batch_size: B.

        Raises:
            Stopped: if a signal asked for it, after the batch in hand.
        """
        num_rows = len(self.array)
        if self._done:
            print(f"Continuing after {self._done} of {num_rows} images.")
        with (
            StopRequest() as stop,
            tqdm(total=num_rows, initial=self._done, unit="image", smoothing=0.0) as bar,
            contextlib.suppress(Stopped),  # of what computes, which looks at the same request
        ):
            while self._done < num_rows and not stop.exit_code:
                numbers = np.arange(self._done, self._done + batch_size)
                batch = np.asarray(compute(numbers))[: num_rows - self._done]
                self.array[self._done : self._done + len(batch)] = batch
                self.array.flush()
                self._done += len(batch)
                state = {"done": self._done, "settings": self._settings}
                files.write_atomically(self._state, json.dumps(state) + "\n")
                bar.update(len(batch))
        if self._done < num_rows:
            message = f"Stopped after {self._done} of {num_rows} images; the same command continues."
            raise Stopped(message, stop.exit_code)

    def remove(self) -> None:
        """Deletes the files, when the rows have gone where they belong."""
        self.file.unlink()
        self._state.unlink()
