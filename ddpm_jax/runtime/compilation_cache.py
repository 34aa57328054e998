"""Compiled programs kept on disk, so that the next start of the same command does not compile again.

JAX writes and reads them. This module tells it where, and deletes the least recently used ones when the folder grows
too large. JAX's own limit needs one more package and holds a file lock while it reads, in home folders that the hosts
of a cluster share.
"""

import contextlib
import os
from pathlib import Path

import jax

from ddpm_jax.runtime import cache

_MAX_BYTES = 4 * 2**30  # the train step of CIFAR-10 takes some megabytes


def enable() -> None:
    """Turns the cache on, as `xla` in `cache.folder()`; to be called before the first compilation.

    $JAX_COMPILATION_CACHE_DIR, where set, is left to JAX, empty or not. An empty $DDPM_JAX_CACHE turns the cache
    off, and so does a folder that cannot be created or written: the cache saves time and no more.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or os.environ.get("DDPM_JAX_CACHE") == "":
        return
    with contextlib.suppress(OSError, RuntimeError):
        path = cache.folder() / "xla"
        # Whoever can write here can run code as us: JAX loads these programs unchecked.
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            return
        _delete_oldest(path, max_bytes=_MAX_BYTES)
        jax.config.update("jax_compilation_cache_dir", str(path))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # By default, programs that compile within a second are not kept; a command has dozens of those.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _delete_oldest(path: Path, *, max_bytes: int) -> None:
    """Deletes the files read or written longest ago, until the rest take at most `max_bytes`."""
    entries = []
    for file in path.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process deletes too
            entries.append((file.stat(), file))
    entries.sort(key=lambda entry: max(entry[0].st_atime, entry[0].st_mtime), reverse=True)
    total = 0
    for status, file in entries:
        total += status.st_size
        if total > max_bytes:
            file.unlink(missing_ok=True)
