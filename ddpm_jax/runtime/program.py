"""What this process runs: versions, the package's code, and the settings of JAX that change numbers.

Processes that train together must have it in common. It is told without JAX's devices: on a TPU pod those need all
hosts.
"""

import contextlib
import hashlib
import importlib.metadata
import platform
from pathlib import Path

_PACKAGES = ("ddpm_jax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy")
_ROOT = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def code() -> dict[str, str]:
    """Returns a hash of each of the package's modules; experiments are left out, as what they return counts."""
    modules = {path.relative_to(_ROOT): path for path in sorted(_ROOT.rglob("*.py"))}
    return {
        f"code {name.as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for name, path in modules.items() if name.parts[0] != "configs"
    }  # fmt: skip


def jax_settings() -> dict[str, str]:
    """Returns the settings of JAX that change what a program computes."""
    import jax  # here, as commands that do without it are asked for their help, too

    names = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion")
    return {name.upper(): str(getattr(jax.config, name)) for name in names}


def facts() -> dict[str, str]:
    """Returns all of it, by names for people."""
    return versions() | jax_settings() | code()
