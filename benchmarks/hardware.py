"""The machine: what it is, and how fast it multiplies large matrices, the limit of all else."""

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ddpm_jax.runtime import program

_VARIABLES = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "GLIBC_TUNABLES")  # on which a time depends
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "torch", "diffusers")
_ROOT = Path(__file__).parents[1]


def share_gpu() -> None:
    """Lets JAX take a GPU's memory as it needs it, not most of it at once: PyTorch computes there, too."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def on_gpu() -> bool:
    """Whether JAX computes on a GPU."""
    return jax.default_backend() == "gpu"


def num_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """What a result depends on besides the code: for the JSON."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results")),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": program.processor(),
        "cores": num_cores(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "variables": {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)},
    }


def slug() -> str:
    """The devices as part of a file name: 'cpu', 'cpu_huge_pages' (of glibc), 'nvidia_h200', 'nvidia_h200_x8'."""
    name = re.sub("[^a-z0-9]+", "_", jax.devices()[0].device_kind.lower()).strip("_")
    count = f"_x{jax.device_count()}" if jax.device_count() > 1 else ""
    huge = "_huge_pages" if "malloc.hugetlb" in os.environ.get("GLIBC_TUNABLES", "") else ""
    return f"{name}{count}{huge}"


def matrix_product(dtype: str, *, quick: bool) -> tuple[Callable[[], object], float]:
    """A large matrix product on one device, and its floating-point operations.

    Args:
        dtype: 'float32' (in full precision) or 'bfloat16'.
        quick: a small one.
    """
    size = 256 if quick else 8192 if on_gpu() else 2048
    count = 10 if on_gpu() else 1  # in one dispatch
    a, b = (jax.random.normal(jax.random.key(seed), (size, size), dtype) / size**0.5 for seed in (0, 1))

    @jax.jit
    def multiply(a: jax.Array, b: jax.Array) -> jax.Array:
        precision = "highest" if dtype == "float32" else None
        return jax.lax.fori_loop(0, count, lambda _, a: jnp.matmul(a, b, precision=precision), a)

    return lambda: jax.block_until_ready(multiply(a, b)), 2.0 * count * size**3


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
