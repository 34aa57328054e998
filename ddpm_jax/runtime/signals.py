"""Leaving in order: SIGTERM and Ctrl-C become a request that long work sees between two steps or batches."""

import os
import signal
from types import FrameType, TracebackType
from typing import ClassVar

import jax


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
    """

    _entered: ClassVar["StopRequest | None"] = None

    def __init__(self) -> None:
        self.exit_code = 0
        self._interrupted = False
        self._received = 0
        self._handlers_before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if StopRequest._entered is None:
            StopRequest._entered = self
            self._handlers_before = {
                number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)
            }
        return StopRequest._entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if StopRequest._entered is self:
            StopRequest._entered = None
            for number, handler in self._handlers_before.items():
                signal.signal(number, handler)

    @property
    def agreed_code(self) -> int:
        """Returns the exit code that all processes of the run know of; a process alone agrees with itself."""
        return self.exit_code if jax.process_count() == 1 else self._received

    def request(self, exit_code: int) -> None:
        """Requests what a signal requests, but to end with this exit code."""
        self.exit_code = self.exit_code or exit_code

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            os._exit(128 + number)
        self._interrupted = number == signal.SIGINT
        self.exit_code = 128 + number
        name = signal.Signals(number).name
        print(f"\n{name}: finishing what is in hand, and saving (Ctrl-C again: leave at once).", flush=True)


def stop_code() -> int:
    """Returns the exit code that this process was asked to end with; 0: none, or no StopRequest is entered."""
    return StopRequest._entered.exit_code if StopRequest._entered else 0


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
