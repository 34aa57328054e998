"""The log of a training run: lines on the terminal, and whatever `writers` write."""

import contextlib
import datetime
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import optax

from ddpm_jax.runs.writers import Writer
from ddpm_jax.training import Metrics, NonFiniteError


class MetricLog:
    """Collects the metrics of every step and reports their mean every `log_every` steps.

    Metrics are fetched one dispatch late, so that the devices have work while the host waits. The rate is measured
    between such fetches alone: metrics that are fetched without delay (`flush`) may have been ready for long, or have
    just been waited for, so the time between tells little about the devices.

    Args:
        writers: where it is written. Without any nothing is printed, and losses that are not finite are refused all the
            same.
        num_steps: steps when the run is finished.
        batch_size: images a step.
        log_every: in steps.
        learning_rate: as a function of the steps made before.
    """

    def __init__(
        self, writers: Sequence[Writer], *, num_steps: int, batch_size: int, log_every: int,
        learning_rate: optax.Schedule,
    ):  # fmt: skip
        self._num_steps, self._batch_size, self._log_every = num_steps, batch_size, log_every
        self._learning_rate = learning_rate
        self._writers = writers
        self._waiting: tuple[int, Metrics] | None = None
        self._rows: list[Metrics] = []
        self._late_fetch: float | None = None  # the time of the last; the first has the compilation behind it
        self._steps_since = 0
        self._timed_steps, self._timed_seconds = 0, 0.0  # since the last report

    def add(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics [K] of the dispatch that ended with `step`, and fetches those of the one before.

        Raises:
            NonFiniteError: if the loss or the gradient norm of a step is not finite.
        """
        self._fetch(late=True)
        self._waiting = (step, metrics)

    def flush(self) -> None:
        """Fetches the metrics that `add` took last: every step so far was finite."""
        self._fetch(late=False)

    def _fetch(self, *, late: bool) -> None:
        if self._waiting is None:
            return
        (last, stacked), self._waiting = self._waiting, None
        stacked = jax.device_get(stacked)
        count = len(stacked.loss)
        for i in range(count):
            row = jax.tree.map(lambda x, i=i: x[i], stacked)
            step = last - count + 1 + i
            for name in ("loss", "grad_norm"):
                if not math.isfinite(value := getattr(row, name)):
                    raise NonFiniteError(f"The {name} of step {step} is {value}")
            if self._writers:
                self._rows.append(row)
        self._steps_since += count
        if late:
            self._time()
        if self._writers and (last % self._log_every == 0 or last == self._num_steps):
            self._report(last)

    def _time(self) -> None:
        now = time.perf_counter()
        if self._late_fetch is not None:
            self._timed_steps += self._steps_since
            self._timed_seconds += now - self._late_fetch
        self._late_fetch, self._steps_since = now, 0

    def log(self, step: int, values: dict[str, float]) -> None:
        """Logs scores of the model after a step."""
        self._write(step, lambda writer: writer.scalars(step, values))
        if self._writers:
            print(
                f"step {step}/{self._num_steps}", *(f"{name} {value:.6g}" for name, value in values.items()), sep="  "
            )

    def picture(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Logs a picture, uint8 [H, W, C]."""
        self._write(step, lambda writer: writer.picture(step, name, pixels))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time spent inside out of the training rate."""
        begin = time.perf_counter()
        yield
        if self._late_fetch is not None:
            self._late_fetch += time.perf_counter() - begin

    def close(self) -> None:
        """Closes the writers."""
        self._write(self._num_steps, lambda writer: writer.close())

    def _report(self, step: int) -> None:
        rate = self._timed_steps / self._timed_seconds if self._timed_steps else None
        rows: Metrics = jax.tree.map(lambda *values: np.stack(values), *self._rows)
        quarters, counts = rows.quarter_loss.sum(axis=0), rows.quarter_count.sum(axis=0)
        values = {
            "loss": float(rows.loss.mean()),
            **{f"loss_quarter_{i + 1}": float(quarters[i] / counts[i]) if counts[i] else None for i in range(4)},
            "grad_norm": float(rows.grad_norm.mean()),
            "param_norm": float(rows.param_norm[-1]),
            "lr": float(self._learning_rate(step - 1)),
            "steps_per_s": rate,
            "images_per_s": rate and rate * self._batch_size,
        }
        self._rows, self._timed_steps, self._timed_seconds = [], 0, 0.0
        self._write(step, lambda writer: writer.scalars(step, values))
        left = f", {datetime.timedelta(seconds=round((self._num_steps - step) / rate))} left" if rate else ""
        speed = f"  {rate:.2f} steps/s, {rate * self._batch_size:.0f} images/s{left}" if rate else ""
        print(
            f"step {step}/{self._num_steps}  loss {values['loss']:.4f}  grad norm {values['grad_norm']:.3f}"
            f"  lr {values['lr']:.2e}{speed}",
            flush=True,
        )

    def _write(self, step: int, act: Callable[[Writer], None]) -> None:
        problems = {}
        for writer in self._writers:
            try:
                act(writer)
            except OSError as error:
                problems[error.strerror or str(error)] = None
        for problem in problems:
            print(f"The metrics of step {step} are not written yet: {problem}.", file=sys.stderr)
