"""A trace of some training steps on the devices and the host, for the timelines of TensorBoard or Perfetto."""

import re
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax


def parse(text: str) -> range:
    """Parses 'N:M', the steps N to M inclusive, counted from 1; '' means none.

    Raises:
        ValueError: if the text is neither.
    """
    if not text:
        return range(0)
    numbers = re.fullmatch(r"([1-9][0-9]*):([1-9][0-9]*)", text, re.ASCII)
    if numbers is None or int(numbers[1]) > int(numbers[2]):
        raise ValueError("must be FIRST:LAST, steps counted from 1 and in order, such as '100:110', or ''")
    return range(int(numbers[1]), int(numbers[2]) + 1)


class Traced:
    """Wraps a function that runs several training steps, and traces some of them.

    To be entered as a context: a trace that is incomplete on leaving is written as far as it got.

    Args:
        train_steps: `(state, batch, ...) -> pytree of arrays`, K steps a call for a batch of arrays [K, ...].
        steps: to be traced, and with them the whole calls that they lie in. Those of a run's first call show little
            but the compilation.
        start_step: steps done before the first call.
        directory: for the trace; created when there is one.
    """

    def __init__(self, train_steps: Callable, *, steps: range, start_step: int, directory: Path):
        self._train_steps, self._steps, self._directory = train_steps, steps, directory
        self._step = start_step
        self._tracing = False

    def __enter__(self) -> "Traced":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def __call__(self, state: Any, batch: Any, *rest: Any) -> Any:
        """Calls `train_steps`, traced if this call contains any of the steps."""
        before, self._step = self._step, self._step + len(jax.tree.leaves(batch)[0])
        if self._steps and before < self._steps[-1] and self._step >= self._steps[0] and not self._tracing:
            jax.profiler.start_trace(self._directory)
            self._tracing = True
        result = self._train_steps(state, batch, *rest)
        if self._tracing and self._step >= self._steps[-1]:
            jax.block_until_ready(result)  # else the trace ends before the devices have begun
            self._stop()
        return result

    def _stop(self) -> None:
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
            print(f"Trace of the steps up to {self._step}: {self._directory}")
