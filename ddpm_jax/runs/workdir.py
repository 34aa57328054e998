"""The folder of one run: its config, its lock, and the names of what lies in it."""

import contextlib
import fcntl
import itertools
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import ml_collections

from ddpm_jax.runs import config
from ddpm_jax.runtime import files

CONFIG, CHECKPOINTS, LOCK, METRICS, PROFILE, SAMPLES, TABLES, TENSORBOARD = (
    "config.json", "checkpoints", ".lock", "metrics.jsonl", "profile", "samples", "tables", "tensorboard",
)  # fmt: skip
_MAX_CONFIG_CHARACTERS = 2**16  # one has some 2000; of a longer file the rest is missed as JSON


def read_config(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """Reads the config that the run was started with; settings that are younger than it have their defaults.

    Raises:
        FileNotFoundError: if that is no work folder.
        ValueError: if it is not a config, or a wrong one.
    """
    path = Path(workdir) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{Path(workdir).absolute()} is no work folder: it has no {CONFIG}. Train there first.")
    try:
        with path.open() as file:
            return config.from_json(file.read(_MAX_CONFIG_CHARACTERS))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def free_name(path: Path) -> Path:
    """Returns a path that nothing has: this one, or with -2, -3, ... after its name."""
    paths = (path.with_name(f"{path.name}-{i}") if i > 1 else path for i in itertools.count(1))
    return next(free for free in paths if not os.path.lexists(free))


def recent_loss(workdir: str | os.PathLike, step: int, *, reports: int = 10) -> float | None:
    """Averages the training loss over the last reports in metrics.jsonl up to `step`; None if there is none."""
    path = Path(workdir) / METRICS
    *lines, _torn = path.read_text().split("\n") if path.is_file() else [""]  # a run may be writing there
    reports_so_far = [report for report in map(json.loads, lines) if report["step"] <= step and "loss" in report]
    losses = [report["loss"] for report in reports_so_far[-reports:]]
    return sum(losses) / len(losses) if losses else None


def check(workdir: str | os.PathLike, settings: ml_collections.ConfigDict) -> None:
    """Refuses to continue the run in a work folder with settings that would make it another run.

    Raises:
        ValueError: naming the settings that differ; or if there are checkpoints without their config.
    """
    path, checkpoints = Path(workdir) / CONFIG, Path(workdir) / CHECKPOINTS
    if not path.is_file() and any(entry.name.isdecimal() for entry in checkpoints.glob("*")):
        raise ValueError(
            f"{checkpoints.absolute()} holds checkpoints, but {path.name} beside it is missing, which describes "
            "them. Put it back, or start in another --workdir."
        )
    if path.is_file() and (changed := config.differences(read_config(workdir), settings)):
        raise ValueError(
            f"{Path(workdir).absolute()} holds a run with other settings: {'; '.join(changed)}. Continue it with "
            f"its own, start in another --workdir, or, to go on with the new ones on purpose, edit {path} first."
        )


def write_config(workdir: str | os.PathLike, settings: ml_collections.ConfigDict) -> None:
    """Writes the config of a new run, or of the one that is continued, and makes the folder.

    Raises:
        ValueError: as `check` does.
    """
    check(workdir, settings)
    path = Path(workdir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, config.to_json(settings))


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Makes the folder, and keeps a second training run out of it while entered; who only reads does not ask.

    The kernel's lock on a file, so it ends with the process, however that ends. On a network file system it holds
    between hosts where the system supports locks, as NFS does.

    Raises:
        ValueError: if another run holds it.
    """
    path = Path(workdir) / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"{Path(workdir).absolute()} is in use by another run, {file.read().strip() or 'just begun'}: wait "
                "until it ends, stop it, or start in another --workdir."
            ) from None
        file.truncate(0)
        print(f"process {os.getpid()} on {socket.gethostname()}", file=file, flush=True)
        yield
