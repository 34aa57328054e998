import os

import pytest

from ddpm_jax.runtime import compilation_cache


def test_what_was_used_longest_ago_is_deleted(tmp_path):
    for name, read, written in (("a", 50, 10), ("b", 20, 20), ("c", 30, 30), ("d", 10, 40)):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (read, written))
    compilation_cache._delete_oldest(tmp_path, max_bytes=400)
    assert len(list(tmp_path.iterdir())) == 4
    compilation_cache._delete_oldest(tmp_path, max_bytes=299)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "d"]


@pytest.fixture
def updated(monkeypatch):
    """Returns a dictionary that receives the settings which `enable` gives to JAX, in place of JAX."""
    settings = {}
    monkeypatch.setattr(compilation_cache.jax.config, "update", settings.__setitem__)
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "DDPM_JAX_CACHE"):
        monkeypatch.delenv(name, raising=False)
    return settings


def test_the_folder_is_made_for_its_owner_alone(updated, monkeypatch, tmp_path):
    monkeypatch.setenv("DDPM_JAX_CACHE", str(tmp_path / "ours"))
    compilation_cache.enable()
    path = tmp_path / "ours" / "xla"
    assert updated == {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JAX_COMPILATION_CACHE_DIR", "/theirs"),
        ("JAX_COMPILATION_CACHE_DIR", ""),
        ("DDPM_JAX_CACHE", ""),
        ("DDPM_JAX_CACHE", "/dev/null/no folder"),
        ("DDPM_JAX_CACHE", "/proc/no such folder"),
        ("DDPM_JAX_CACHE", "~no-such-user/cache"),
    ],
)
def test_jax_is_left_alone_where_it_is_turned_off_or_cannot_be(updated, monkeypatch, tmp_path, name, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    compilation_cache.enable()
    assert updated == {}
    assert list(tmp_path.iterdir()) == []
