"""The folder for files that can be computed or downloaded again."""

import os
from pathlib import Path


def folder() -> Path:
    """Returns $DDPM_JAX_CACHE, else ddpm_jax in $XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("DDPM_JAX_CACHE"):
        return Path(own).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # A relative path there does not count, says the XDG specification.
    return (base if base.is_absolute() else Path.home() / ".cache") / "ddpm_jax"
