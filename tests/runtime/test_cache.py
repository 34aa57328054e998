import os
import threading
import time
from pathlib import Path

import pytest

from ddpm_jax.runtime import cache


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("DDPM_JAX_CACHE", "/a")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    monkeypatch.setenv("HOME", "/c")
    assert cache.folder() == Path("/a")
    monkeypatch.delenv("DDPM_JAX_CACHE")
    assert cache.folder() == Path("/b/ddpm_jax")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder() == Path("/c/.cache/ddpm_jax")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.folder() == Path("/c/.cache/ddpm_jax")


def test_of_those_that_need_a_file_at_the_same_time_one_makes_it_and_the_others_wait(tmp_path, capsys):
    file, made = tmp_path / "new" / "statistics.npz", []

    def need():
        with cache.missing(file) as missing:
            if missing:
                made.append(threading.current_thread().name)
                file.write_text("whole")

    others = [threading.Thread(target=need, name=f"other {i}") for i in range(3)]
    said = ""
    with cache.missing(file) as missing:
        assert missing
        for other in others:
            other.start()
        while said.count("waiting") < len(others):
            said += capsys.readouterr().out
            assert all(other.is_alive() for other in others)
            time.sleep(0.01)
        file.write_text("whole")
    for other in others:
        other.join()
    assert not made
    line = f"{file} is being computed by another command, process {os.getpid()} on "
    assert all(waiting.startswith(line) for waiting in said.splitlines())
    assert [path.name for path in file.parent.iterdir()] == ["statistics.npz"]  # no lock is left


def test_who_waited_for_one_that_failed_makes_the_file(tmp_path):
    file = tmp_path / "statistics.npz"
    with pytest.raises(KeyboardInterrupt), cache.missing(file):
        raise KeyboardInterrupt
    with cache.missing(file) as missing:
        assert missing


def test_a_file_that_is_there_needs_no_place_to_write_to(tmp_path):
    (tmp_path / "statistics.npz").write_text("whole")
    with cache.missing(tmp_path / "statistics.npz") as missing:
        assert not missing
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.npz"]
