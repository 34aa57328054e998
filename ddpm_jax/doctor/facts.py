"""What one process knows of itself, without asking JAX for devices: on a TPU pod that takes all hosts."""

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
from pathlib import Path

_PACKAGES = ("ddpm_jax", "jax", "jaxlib", "libtpu", "flax", "optax", "orbax-checkpoint", "numpy")


@dataclasses.dataclass(frozen=True)
class Facts:
    """Of one process; JSON values."""

    process: int
    num_processes: int  # that it was told
    host: str
    versions: dict[str, str]
    folder: str  # the --workdir, or what is there of the way to it; '': none was given
    free_bytes: int  # of that disk

    @property
    def name(self) -> str:
        """For people."""
        return f"process {self.process} ({self.host})"


def gather(*, process: int, num_processes: int, workdir: str) -> Facts:
    """The facts of this process."""
    folder = _existing(workdir) if workdir else None
    return Facts(
        process=process,
        num_processes=num_processes,
        host=socket.gethostname(),
        versions=_versions(),
        folder=str(folder or ""),
        free_bytes=shutil.disk_usage(folder).free if folder else 0,
    )


def write_marker(folder: str, name: str) -> str:
    """Makes and deletes a file of this process in the folder; says in words what prevents it, or ''."""
    path = Path(folder) / name
    try:
        path.touch(exist_ok=False)
        path.unlink()
    except OSError as error:
        return f"cannot write in {folder}: {error.strerror}"
    return ""


def _existing(workdir: str) -> Path:
    """The folder itself, or that above it which is there already."""
    path = Path(workdir).expanduser().absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "none"
    if commit := _commit():
        versions["commit"] = commit
    return versions


def _commit() -> str:
    """The commit that this package is checked out at, with '-dirty' where files differ from it; '' if none."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():  # git would look further up, in folders that are not ours
        return ""
    command = ["git", "-C", os.fspath(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
