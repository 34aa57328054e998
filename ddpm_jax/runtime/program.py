"""What this process runs: versions, the package's code, and the settings of JAX that change numbers.

Processes that train together must have these facts in common. They are told without JAX's devices: on a TPU pod those
need all hosts.
"""

import contextlib
import hashlib
import importlib.metadata
import platform
import subprocess
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


def commit() -> str:
    """Returns the commit that this package is checked out at, with '-dirty' if files differ from it, or 'none'."""
    root = _ROOT.parent
    command = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]  # or git would search the folders above
    command += ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "none"


def processor() -> str:
    """Returns the name of the CPU, or '' where the system does not tell it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


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
    """Returns all that processes must have in common, by names for people."""
    return versions() | jax_settings() | code()
