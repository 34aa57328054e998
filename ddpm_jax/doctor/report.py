"""Collects the report of one process about itself, without JAX's devices: on a TPU pod those need all hosts."""

import dataclasses
import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ddpm_jax.runtime import program

MARKER = ".doctor-"  # begins the names of files that show whether a folder is writable and shared


@dataclasses.dataclass(frozen=True)
class Report:
    """Describes one process, in JSON values."""

    process: int
    num_processes: int  # that this process was started with
    host: str
    versions: dict[str, str]
    facts: dict[str, str]  # else that all must have in common: code, settings, data
    folder: str  # the work folder, or the nearest one above it that exists; '' to leave it unchecked
    folder_problem: str  # '' if there is none
    free_bytes: int  # on the disk of `folder`
    skew_s: float = 0.0  # the clock of this process minus that of process 0

    @property
    def name(self) -> str:
        """Names the process and its host."""
        return f"process {self.process} ({self.host})"

    def describe(self) -> str:
        """Returns the report as lines of text."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        disk = f"\n  {self.folder}: {self.free_bytes / 2**30:.1f} GiB free" if self.folder else ""
        return f"Process {self.process} of {self.num_processes} on {self.host}\n  {versions}{disk}"


def make_report(*, process: int, num_processes: int, workdir: str, facts: Mapping[str, str]) -> Report:
    """Collects the report of this process, with `facts` besides its own."""
    path = Path(workdir).expanduser().absolute()
    folder = str(next(folder for folder in (path, *path.parents) if folder.is_dir())) if workdir else ""
    return Report(
        process=process,
        num_processes=num_processes,
        host=socket.gethostname(),
        versions=program.versions() | {"commit": program.commit()},
        facts=program.jax_settings() | program.code() | dict(facts),
        folder=folder,
        folder_problem=check_folder(folder),
        free_bytes=shutil.disk_usage(folder).free if folder else 0,
    )


def check_folder(folder: str, *, marker: str = "") -> str:
    """Returns why a folder cannot be written or is not the one where process 0 created `marker`; '' if all is well."""
    if not folder:
        return ""
    if marker and not Path(marker).exists():
        return f"does not see {marker}, which process 0 has just created: --workdir is not one shared folder"
    try:
        tempfile.NamedTemporaryFile(prefix=MARKER, dir=folder).close()
    except OSError as error:
        return f"cannot write in {folder}: {error.strerror}"
    return ""
