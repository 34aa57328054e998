"""Leaving in order: SIGTERM and Ctrl-C become a request that long work sees between two steps or batches."""

import os
import signal
from types import FrameType, TracebackType
from typing import ClassVar


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A signal asked for it; `exit_code` is what the process should end with."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted in `exit_code`; a second SIGINT leaves at once.

    `exit_code` is what the process should end with: 0, unless something asks it to stop before the end; for a signal
    128 + its number, as shells report a process that a signal ended. Where one is entered inside another, both are
    the same request.
    """

    _entered: ClassVar["StopRequest | None"] = None

    def __init__(self) -> None:
        self.exit_code = 0
        self._interrupted = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if StopRequest._entered is None:
            StopRequest._entered = self
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return StopRequest._entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if StopRequest._entered is self:
            StopRequest._entered = None
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def ask(self, exit_code: int) -> None:
        """Asks for what a signal asks for, but to end with this exit code."""
        self.exit_code = self.exit_code or exit_code

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._interrupted:
            os._exit(128 + number)
        self._interrupted = number == signal.SIGINT
        self.exit_code = 128 + number
        name = signal.Signals(number).name
        print(f"\n{name}: finishing what is in hand, and saving (Ctrl-C again: leave at once).", flush=True)


def check() -> None:
    """Leaves if the request that is entered was made.

    Raises:
        Stopped: then.
    """
    request = StopRequest._entered
    if request and request.exit_code:
        raise Stopped("Stopped by a signal.", request.exit_code)


def relay(exit_code: int) -> None:
    """Takes over what another process was asked for; 0: nothing.

    Raises:
        Stopped: if no request is entered here that could note it.
    """
    if exit_code and not StopRequest._entered:
        raise Stopped("Stopped by a signal.", exit_code)
    if exit_code:
        StopRequest._entered.ask(exit_code)
