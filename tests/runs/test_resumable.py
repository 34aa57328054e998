import errno
import fcntl
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


def test_the_bar_moves_within_a_batch(tmp_path, capsys):
    filled = rows(tmp_path)

    def compute(numbers):
        shown.append(filled._bar.n)
        filled.report(0.5)
        shown.append(filled._bar.n)
        return ones(numbers)

    shown = []
    filled.fill(compute, batch_size=4)
    assert shown == [0, 2, 4, 5]
    assert "7/7" in capsys.readouterr().err


def ones(numbers):
    return np.ones((len(numbers), 2))


def begin(folder, **settings):
    """Two of the seven rows, and a stop."""

    def compute(numbers):
        os.kill(os.getpid(), signal.SIGTERM)
        return ones(numbers)

    with pytest.raises(Stopped):
        rows(folder, **settings).fill(compute, batch_size=2)


def test_rows_of_other_weights_are_not_continued(tmp_path):
    begin(tmp_path, step=3, weights_sha256="a" * 16)
    with pytest.raises(ValueError, match="has not finished, with settings"):
        rows(tmp_path, step=3, weights_sha256="b" * 16)
    rows(tmp_path, step=3, weights_sha256="a" * 16).fill(ones, batch_size=2)


def test_rows_that_are_older_than_fingerprints_are_continued_where_they_must_be_the_model_s(tmp_path):
    begin(tmp_path, step=3)
    with pytest.raises(ValueError, match="has not finished, with settings"):
        rows(tmp_path, step=3, weights_sha256="a" * 16)
    settings = {"step": 3, "weights_sha256": "a" * 16}
    again = ResumableArray(
        tmp_path / "table.json", settings=settings, shape=(7, 2), dtype=np.float64, or_unsigned=True
    )  # fmt: skip
    computed = []
    again.fill(lambda numbers: computed.extend(numbers) or ones(numbers), batch_size=5)
    assert computed == [2, 3, 4, 5, 6]


def flip(path, at):
    spoiled = bytearray(path.read_bytes())
    spoiled[at] ^= 1
    path.write_bytes(spoiled)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows, _: flip(rows, -7 * 16 + 20), "is damaged: delete it .its first 2 rows are not as they were"),
        (lambda rows, _: flip(rows, rows.read_bytes().index(b"7")), "is damaged: delete it .it holds"),  # of the shape
        (lambda rows, _: os.truncate(rows, 140), "is damaged: delete it"),
        (lambda rows, _: rows.write_bytes(b""), "is damaged: delete it .it is empty"),
        (lambda rows, _: rows.write_bytes(b"garbage" * 40), "is damaged: delete it"),
        (lambda _, state: state.write_text(state.read_text().replace('"done": 2', '"done": 3')), "its first 3 rows"),
        (lambda _, state: state.write_text(state.read_text().replace('"done": 2', '"done": 9')), "9 of 7"),
        (lambda _, state: state.write_bytes(b""), "does not say how much of table.partial.npy is done: delete both"),
    ],
)
def test_rows_that_are_damaged_are_not_continued(tmp_path, damage, message):
    begin(tmp_path)
    files = [tmp_path / "table.partial.npy", tmp_path / "table.partial.json"]
    damage(*files)
    before = [file.read_bytes() for file in files]
    with pytest.raises(ValueError, match=message):
        rows(tmp_path)
    assert [file.read_bytes() for file in files] == before


def test_what_was_begun_before_rows_had_a_checksum_is_continued(tmp_path):
    begin(tmp_path)
    state = tmp_path / "table.partial.json"
    state.write_text('{"done": 2, "settings": {"shape": [7, 2]}}')
    again = rows(tmp_path)
    again.fill(ones, batch_size=5)
    np.testing.assert_array_equal(again.array, np.ones((7, 2)))
    np.testing.assert_array_equal(rows(tmp_path).array, np.ones((7, 2)))  # by its checksum


def test_a_count_that_outlived_its_rows_says_nothing_of_new_ones(tmp_path):
    begin(tmp_path)
    (tmp_path / "table.partial.npy").unlink()
    rows(tmp_path)  # and a kill before its first batch
    computed = []
    rows(tmp_path).fill(lambda numbers: computed.extend(numbers) or ones(numbers), batch_size=7)
    assert computed == list(range(7))


def test_a_second_command_is_kept_away_while_the_first_fills_and_publishes(tmp_path):
    with (tmp_path / "table.partial.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        print("process 7 on elsewhere", file=other, flush=True)
        with pytest.raises(ValueError, match=r"is being filled by another command, process 7 on elsewhere: wait until"):
            rows(tmp_path)
    filled = rows(tmp_path)  # whoever held it is gone
    filled.fill(ones, batch_size=7)
    with (tmp_path / "table.partial.lock").open() as lock:
        assert lock.read().startswith(f"process {os.getpid()} on ")
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        filled.remove()
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not list(tmp_path.iterdir())


def test_the_disk_gives_all_the_room_before_the_work_begins(tmp_path):
    made = ResumableArray(tmp_path / "x.npz", settings={}, shape=(1000, 1000), dtype=np.float32)
    assert made.file.stat().st_blocks * 512 >= 4_000_000  # a page that it had not would be a SIGBUS


def test_a_disk_without_room_is_said_before_the_work_begins(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match=r"x.partial.npy takes 3.8 MiB, and the disk does not give them: No space left"):
        ResumableArray(tmp_path / "x.npz", settings={}, shape=(1000, 1000), dtype=np.float32)
    assert not list(tmp_path.iterdir())
