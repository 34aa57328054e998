"""What was measured, in tables/metrics.json of a work folder: a list of entries, one a score.

An entry: `metric`; `name`, for people; `value`; `error` and `error_name`, its uncertainty; `settings`, all that
the value depends on; `made`, when and with which versions. Measured again, an entry replaces the one before.
"""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ddpm_jax.runtime import files

FILE = "metrics.json"


class Score(NamedTuple):
    """One number.

    Attributes:
        metric: as `--metrics` calls it.
        name: for people, with the number of samples where it matters: 'FID@1000'.
        value: the number.
        error: its uncertainty; None if there is none to be had from one measurement.
        error_name: 'standard error', or 'deviation' over splits or subsets.
    """

    metric: str
    name: str
    value: float
    error: float | None = None
    error_name: str = ""

    def __str__(self) -> str:
        """The number and its uncertainty."""
        return f"{self.value:.6g}" + ("" if self.error is None else f" ± {self.error:.2g} ({self.error_name})")


def read(file: Path) -> list[dict[str, Any]]:
    """The entries of a file, none if it is not there."""
    return json.loads(file.read_text()) if file.is_file() else []


def find(file: Path, *, settings: dict[str, Any]) -> list[Score]:
    """The scores that were measured with these settings before."""
    entries = [entry for entry in read(file) if entry["settings"] == settings]
    return [Score(**{field: entry[field] for field in Score._fields}) for entry in entries]


def write(file: Path, scores: list[Score], *, settings: dict[str, Any]) -> None:
    """Adds scores that were measured with these settings, in place of those that were there."""
    made = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("ddpm-jax", "jax", "numpy")}
        | {"python": platform.python_version()},
    }
    names = {score.name for score in scores}
    kept = [entry for entry in read(file) if entry["name"] not in names or entry["settings"] != settings]
    entries = kept + [{**score._asdict(), "settings": settings, "made": made} for score in scores]
    file.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(file, json.dumps(entries, indent=1) + "\n")
