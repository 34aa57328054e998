from pathlib import Path

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
