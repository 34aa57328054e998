import os
import signal

import numpy as np
import pytest

from ddpm_jax import parallel
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runtime.signals import Stopped


def rows(folder, **settings):
    return ResumableArray(folder / "table.json", settings=settings, shape=(7, 2), dtype=np.float64)


@pytest.mark.parametrize("batch_size", [2, 3])  # after which none or one of the seven is left
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_keeps_the_batches_so_far_and_the_next_run_makes_the_others(
    tmp_path, capsys, batch_size, number, code
):
    computed = []

    def compute(numbers, asked=None):
        computed.extend(numbers)
        if asked in numbers:
            os.kill(os.getpid(), number)
        return np.stack([numbers, numbers**2], axis=1)

    first = rows(tmp_path)
    with pytest.raises(Stopped, match=f"Stopped after {2 * batch_size} of 7 images") as stopped:
        first.fill(lambda numbers: compute(numbers, asked=batch_size), batch_size=batch_size)
    assert stopped.value.exit_code == code
    assert computed == list(range(2 * batch_size))
    again = rows(tmp_path)
    again.fill(compute, batch_size=batch_size)
    assert f"Continuing after {2 * batch_size} of 7 images" in capsys.readouterr().out
    assert computed[:7] == list(range(7))  # none twice; beyond, to make the last batch whole
    np.testing.assert_array_equal(again.array, [[i, i**2] for i in range(7)])
    again.remove()
    assert not list(tmp_path.iterdir())


def test_rows_begun_with_other_settings_are_left_alone(tmp_path):
    begun = rows(tmp_path, seed=0)
    begun.fill(lambda numbers: np.ones((len(numbers), 2)), batch_size=7)
    with pytest.raises(ValueError, match=r"has not finished, with settings {'seed': 0, .*another path"):
        rows(tmp_path, seed=1)
    np.testing.assert_array_equal(rows(tmp_path, seed=0).array, np.ones((7, 2)))


def test_a_signal_that_comes_before_the_devices_are_asked_keeps_the_batches_so_far_too(tmp_path):
    spread = parallel.map_batches(lambda scale, numbers: scale * numbers)

    def compute(numbers):
        if 3 in numbers:
            os.kill(os.getpid(), signal.SIGTERM)
        return np.repeat(spread(parallel.replicate(np.float32(2.0)), numbers)[:, None], 2, axis=1)

    begun = rows(tmp_path)
    with pytest.raises(Stopped, match="Stopped after 3 of 7 images; the same command continues") as stopped:
        begun.fill(compute, batch_size=3)
    assert stopped.value.exit_code == 143
    assert begun.array[:3, 0].tolist() == [0.0, 2.0, 4.0]
