"""Leaving in order: SIGTERM and Ctrl-C become a request that long work sees between two steps or batches.

A closed or blocked terminal is survived too: see `keep_output`.
"""

import contextlib
import io
import os
import select
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import ClassVar

import jax

_HANDLED = (signal.SIGTERM, signal.SIGINT)
_BLOCKED_S = 0.5  # between two looks whether somebody reads


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Work was stopped by a signal; `exit_code` is what the process should end with."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Notes the first SIGTERM or SIGINT in `exit_code` while entered; a second SIGINT leaves at once.

    `exit_code` is what the process should end with: 0, unless something asks it to stop before the end; for a signal
    128 + its number, as shells report a process that a signal ended. Where one is entered inside another, both are
    the same request.

    Python calls a handler when the main thread is back from C, which may take a compilation or a chain of samples. So a
    thread of its own answers: it says what will happen, and how long it takes, and leaves at the second SIGINT.
    """

    _entered: ClassVar["StopRequest | None"] = None
    received: ClassVar[bool] = False  # whether this process was ever asked to stop

    def __init__(self) -> None:
        self.exit_code = 0
        self._interrupted = False
        self._received = 0
        self._expected_end: float | None = None
        self._handlers_before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if StopRequest._entered is None:
            StopRequest._entered = self
            arrivals, self._arrivals = os.pipe()
            os.set_blocking(self._arrivals, False)
            self._answering = threading.Thread(target=self._answer, args=(arrivals,), daemon=True)
            self._answering.start()
            self._wakeup_before = signal.set_wakeup_fd(self._arrivals, warn_on_full_buffer=False)
            self._handlers_before = {number: signal.signal(number, self._handle) for number in _HANDLED}
        return StopRequest._entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if StopRequest._entered is self:
            StopRequest._entered = None
            for number, handler in self._handlers_before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._arrivals)
            self._answering.join()

    @property
    def agreed_code(self) -> int:
        """Returns the exit code that all processes of the run know of; a process alone agrees with itself."""
        return self.exit_code if jax.process_count() == 1 else self._received

    def request(self, exit_code: int) -> None:
        """Requests what a signal requests, but to end with this exit code."""
        self.exit_code = self.exit_code or exit_code

    def expect(self, seconds: float) -> None:
        """Notes how long what begins now takes, which is how long a signal waits for its end."""
        self._expected_end = time.monotonic() + seconds

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            os._exit(128 + number)
        self._interrupted = number == signal.SIGINT
        self.exit_code = 128 + number
        StopRequest.received = True

    def _answer(self, arrivals: int) -> None:
        """Answers the signals that arrive, until their pipe is closed."""
        interrupted = False
        with open(arrivals, "rb", buffering=0) as numbers:
            while number := numbers.read(1):
                if number[0] not in _HANDLED:
                    continue
                if number[0] == signal.SIGINT and interrupted:
                    os._exit(128 + signal.SIGINT)
                interrupted = number[0] == signal.SIGINT
                left = "" if self._expected_end is None else (
                    f", in about {max(1.0, self._expected_end - time.monotonic()):.0f} s"
                )  # fmt: skip
                _say(
                    f"\n{signal.Signals(number[0]).name}: finishing what is in hand, and saving{left} (Ctrl-C again: "
                    "leave at once).\n"
                )


def stop_code() -> int:
    """Returns the exit code that this process was asked to end with; 0: none, or no StopRequest is entered."""
    return StopRequest._entered.exit_code if StopRequest._entered else 0


def expect(seconds: float) -> None:
    """Notes how long what begins now takes, which is how long a signal waits for its end."""
    if StopRequest._entered:
        StopRequest._entered.expect(seconds)


def receive_stop_code(exit_code: int) -> None:
    """Notes the largest `stop_code` of all processes, once all of them have it."""
    if StopRequest._entered:
        StopRequest._entered._received = exit_code


def check() -> None:
    """Leaves if a stop was requested and all processes know of it, so that all leave at the same point.

    Raises:
        Stopped: then.
    """
    request = StopRequest._entered
    if request and request.agreed_code:
        raise Stopped("Stopped by a signal.", request.agreed_code)


def _say(text: str) -> None:
    """Writes to standard output past its buffer, which another thread may hold; nothing if nobody reads."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or no file
        descriptor = sys.stdout.fileno()
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, text.encode())


class Output(io.RawIOBase):
    """Writes to a file, pipe or terminal, and drops what it cannot: no error comes back.

    It waits for a reader that is slow, as any output does; but not once this process was asked to stop, as what has to
    be saved comes first.
    """

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._lost = False

    def fileno(self) -> int:
        """Returns the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Tells whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Returns True."""
        return True

    def write(self, data: memoryview) -> int:
        """Writes some of the bytes, or drops them all, and returns how many."""
        try:
            while not self._lost:
                if select.select([], [self._descriptor], [], 0 if StopRequest.received else _BLOCKED_S)[1]:
                    return os.write(self._descriptor, data[: select.PIPE_BUF])  # as many as do not block
                self._lost = StopRequest.received
        except OSError:
            self._lost = True
        return len(data)


def keep_output() -> None:
    """Makes printing of this process survive standard output and error that are closed, full or not read."""
    for name in ("stdout", "stderr"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed from the beginning, or no file
            stream = getattr(sys, name)
            buffer = io.BufferedWriter(Output(stream.fileno()))
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=True))
