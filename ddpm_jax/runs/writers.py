"""Where the log of a training run goes: one small protocol, and the two that every run has.

A third, such as Weights & Biases, is given to `train` as `Own.open_writer`.
"""

import contextlib
import json
import time
from pathlib import Path
from typing import Protocol

import numpy as np
from absl import logging
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import image, scalar

from ddpm_jax.runs import workdir
from ddpm_jax.runtime import files


class Writer(Protocol):
    """A place that the log goes to; process 0 has it. What raises an OSError is reported, and training goes on.

    A run that is continued gets a new writer, and does anew the steps after its last checkpoint.
    """

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Takes numbers by their names, None where there is none: the means since the last report, or scores."""

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Takes a picture, uint8 [H, W, C], such as the grid of samples."""

    def close(self) -> None:
        """Takes no more."""


class JsonLines:
    """metrics.jsonl: a line of JSON for each call of `scalars`; it has no pictures.

    What a full disk does not take is kept, and written with the next line.

    Args:
        directory: the work folder. What the file says of steps after `start_step` is removed: they are done anew. What
            cannot be read of it is set aside.
        start_step: steps made before.
    """

    def __init__(self, directory: Path, start_step: int):
        path = directory / workdir.METRICS
        lines = workdir.read_metrics(directory)
        _set_aside(path, [line for line, report in lines if report is None])
        kept = [line for line, report in lines if report and report["step"] <= start_step]
        files.write_atomically(path, "".join(f"{line.decode()}\n" for line in kept))
        self._file, self._unwritten = path.open("ab", buffering=0), b""

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Writes a line."""
        self._unwritten += f"{json.dumps({'step': step, **values})}\n".encode()
        self._write()

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Leaves it out."""

    def close(self) -> None:
        """Writes what is left."""
        with contextlib.closing(self._file):
            self._write()

    def _write(self) -> None:
        self._unwritten = self._unwritten[self._file.write(self._unwritten) :]


class TensorBoard:
    """The events of TensorBoard, which forgets the steps after `start_step`: they are done anew.

    `SummaryWriter` is not used: its thread dies of a full disk, and the next call to it waits for ever.
    """

    def __init__(self, directory: Path, start_step: int):
        folder = directory / workdir.TENSORBOARD
        folder.mkdir(exist_ok=True)
        self._events = EventsWriter(str(folder / "events"))
        self._write(start_step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: dict[str, float | None]) -> None:
        """Writes those that there are."""
        for name, value in values.items():
            if value is not None:
                self._write(step, summary=scalar(name, value))
        self._events.flush()

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Writes it, as PNG."""
        self._write(step, summary=image(name, pixels, dataformats="HWC"))
        self._events.flush()

    def close(self) -> None:
        """Closes the file."""
        self._events.close()

    def _write(self, step: int, **event: object) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **event))


def _set_aside(path: Path, lines: list[bytes]) -> None:
    """Writes the lines that cannot be read beside the log, and says so."""
    if lines:
        aside = workdir.free_name(path.with_name(f"{path.name}.unreadable"))
        aside.write_bytes(b"".join(line + b"\n" for line in lines))
        logging.warning(
            "%s is damaged. What cannot be read of it, %d lines, is now in %s.", path, len(lines), aside.name
        )
