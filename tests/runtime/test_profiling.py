import jax
import numpy as np
import pytest

from ddpm_jax.data import Batch
from ddpm_jax.runtime import profiling


def test_the_steps_that_a_text_means():
    assert list(profiling.parse("")) == []
    assert list(profiling.parse("3:5")) == [3, 4, 5]
    assert list(profiling.parse("10:10")) == [10]


@pytest.mark.parametrize("text", ["3", "5:3", "0:3", "-1:3", "a:b", "1:2:3", "1:2\n", " 1:2", "1.0:2", ":"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match="must be FIRST:LAST"):
        profiling.parse(text)


@pytest.mark.parametrize(
    ("k", "steps", "start", "expected"),
    [
        (2, range(0), 0, ["run", "run", "run"]),
        (2, range(3, 5), 0, ["run", "start", "run", "stop", "run"]),
        (2, range(2, 4), 0, ["start", "run", "run", "stop", "run"]),  # whole calls
        (2, range(1, 3), 2, ["run", "run", "run"]),  # done before
        (2, range(1, 5), 2, ["start", "run", "stop", "run", "run"]),  # its first two were done before
        (2, range(6, 99), 0, ["run", "run", "start", "run", "stop"]),  # stopped by the end
        (1, range(3, 4), 0, ["run", "run", "start", "run", "stop"]),
        (5, range(3, 4), 0, ["start", "run", "stop", "run", "run"]),
    ],
)
def test_the_calls_that_are_traced(monkeypatch, tmp_path, k, steps, start, expected):
    events = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda directory: events.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append("stop"))

    def train_steps(state, batch):
        events.append("run")
        return state + len(batch.images)

    with profiling.Traced(train_steps, steps=steps, start_step=start, directory=tmp_path) as traced:
        state = 0
        for _ in range(3):
            state = traced(state, Batch(np.zeros((k, 4, 8, 8, 1)), np.zeros((k, 4))))
    assert state == 3 * k
    assert events == expected
