"""Leaving in order: SIGTERM and Ctrl-C become a request that the loop sees between two steps."""

import os
import signal
from types import FrameType, TracebackType


class StopRequest:
    """While entered, the first SIGTERM or SIGINT is noted in `received`; a second SIGINT leaves at once.

    `exit_code` is what the process should end with: 0, unless something asks it to stop before the end; for a signal
    128 + its number, as shells report a process that a signal ended.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.exit_code = 0

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def ask(self, exit_code: int) -> None:
        """Asks for what a signal asks for, but to end with this exit code."""
        self.exit_code = self.exit_code or exit_code

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            os._exit(128 + number)
        self.received = signal.Signals(number)
        self.exit_code = 128 + number
        print(f"\n{self.received.name}: finishing the step and saving (Ctrl-C again: leave at once).", flush=True)
