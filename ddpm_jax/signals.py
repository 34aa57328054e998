"""Leaving in order: SIGTERM and Ctrl-C become a request that the loop sees between two steps."""

import os
import signal
from types import FrameType, TracebackType


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted in `received`; a second SIGINT leaves at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report a process that a signal ended."""
        return 128 + self.received if self.received else 0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            os._exit(128 + number)
        self.received = signal.Signals(number)
        print(f"\n{self.received.name}: finishing the step and saving (Ctrl-C again: leave at once).", flush=True)
