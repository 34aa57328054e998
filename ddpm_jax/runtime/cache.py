"""The folder for files that can be computed or downloaded again."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ddpm_jax.runtime import files


def folder() -> Path:
    """Returns $DDPM_JAX_CACHE, else ddpm_jax in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("DDPM_JAX_CACHE"):
        return Path(own).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative path there does not count, says the XDG specification.
    return (base if base.is_absolute() else Path.home() / ".cache") / "ddpm_jax"


@contextlib.contextmanager
def missing(file: Path) -> Iterator[bool]:
    """Tells whether a file of the cache has to be made.

    It is, while entered; other commands that need the same file wait, and then find it there.

    Raises:
        OSError: if it has to be made, and its folder cannot be written to.
    """
    if file.is_file():
        yield False
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.one_at_a_time(file, doing="computed"):
        yield not file.is_file()
