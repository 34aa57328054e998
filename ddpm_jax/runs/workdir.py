"""The folder of one run: its config, its lock, and the names of what lies in it."""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_collections

from ddpm_jax import data
from ddpm_jax.runs import config
from ddpm_jax.runtime import files, foreign_files

CONFIG, CHECKPOINTS, DATA, LOCK, METRICS, PROFILE, REPORT, SAMPLES, TABLES, TENSORBOARD, TRAINED_WITH = (
    "config.json", "checkpoints", "data.json", ".lock", "metrics.jsonl", "profile", "report", "samples", "tables",
    "tensorboard", "trained_with.json",
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
        with path.open(encoding="utf-8") as file:
            return config.from_json(file.read(_MAX_CONFIG_CHARACTERS))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: The config is no text ({foreign_files.cause(error)}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def name_part(text: str, *, longest: int) -> str:
    """Returns a part of a file's name: the text, or 16 hex digits of its hash where it has more characters."""
    return text if len(text) <= longest else hashlib.sha256(text.encode()).hexdigest()[:16]


def free_name(path: Path) -> Path:
    """Returns a path that nothing has: this one, or with -2, -3, ... after its name."""
    paths = (path.with_name(f"{path.name}-{i}") if i > 1 else path for i in itertools.count(1))
    return next(free for free in paths if not os.path.lexists(free))


def recent_loss(workdir: str | os.PathLike, step: int, *, reports: int = 10) -> float | None:
    """Averages the training loss over the last reports in metrics.jsonl up to `step`; None if there is none."""
    so_far = [report for _, report in read_metrics(workdir) if report and report["step"] <= step]
    losses = [report["loss"] for report in so_far if isinstance(report.get("loss"), float)][-reports:]
    return sum(losses) / len(losses) if losses else None


def read_metrics(workdir: str | os.PathLike) -> list[tuple[bytes, dict[str, Any] | None]]:
    """Reads each line of metrics.jsonl, and the report in it; None: it cannot be read.

    A last line without an end is left out, unless it is no text: a run is writing it, or a kill cut it short.
    """
    path = Path(workdir) / METRICS
    *lines, last = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    if not last.isascii() or b"\0" in last:
        lines.append(last)
    return [(line, _report(line)) for line in lines]


def _report(line: bytes) -> dict[str, Any] | None:
    try:
        report = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return report if isinstance(report, dict) and type(report.get("step")) is int else None


def check(
    workdir: str | os.PathLike, settings: ml_collections.ConfigDict, *, fingerprint: data.Fingerprint | None = None
) -> None:
    """Refuses to continue the run in a work folder with settings or images that would make it another run.

    Args:
        workdir: the folder, there or not.
        settings: to continue with.
        fingerprint: of the images to continue with, from `data.Source.fingerprint`; None: they are not compared.

    Raises:
        ValueError: naming what differs; or if there are checkpoints without their config.
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
    if path.is_file() and fingerprint:
        _check_data(Path(workdir) / DATA, fingerprint)


def _check_data(path: Path, fingerprint: data.Fingerprint) -> None:
    """Refuses other images than those that the run was started with; runs of before they were noted have none."""
    way_out = f"start in another --workdir, or, to go on with these images on purpose, delete {path} first"
    if path.exists():
        begun_with = foreign_files.read_json(path, f"does not say what images the run has: {way_out}")
        if changed := data.differences(begun_with if isinstance(begun_with, dict) else {}, fingerprint):
            said = foreign_files.printable("; ".join(changed))
            raise ValueError(
                f"{path.parent.absolute()} holds a run on other images: {said}. Bring its own back, {way_out}."
            )


def write_config(
    workdir: str | os.PathLike, settings: ml_collections.ConfigDict, *, fingerprint: data.Fingerprint | None = None
) -> None:
    """Writes the config of a new run, or of the one that is continued, and makes the folder.

    The fingerprint of the images, if it is given, is written beside it when the run begins, and stays.

    Raises:
        ValueError: as `check` does.
    """
    check(workdir, settings, fingerprint=fingerprint)
    path, data_path = Path(workdir) / CONFIG, Path(workdir) / DATA
    path.parent.mkdir(parents=True, exist_ok=True)
    if fingerprint and not (path.is_file() and data_path.exists()):
        files.write_atomically(data_path, json.dumps(fingerprint, indent=2) + "\n")
    files.write_atomically(path, config.to_json(settings))


@contextlib.contextmanager
def locked(workdir: str | os.PathLike) -> Iterator[None]:
    """Makes the folder, and keeps a second training run out of it while entered; who only reads does not ask.

    Raises:
        ValueError: if another run holds it.
    """
    Path(workdir).mkdir(parents=True, exist_ok=True)
    problem = f"{Path(workdir).absolute()} is in use by another run"
    with files.locked(Path(workdir) / LOCK, problem=problem, way_out="start in another --workdir"):
        yield
