"""Scores, and the file that they are written to: tables/metrics.json of a work folder, a list of entries, one a score.

An entry: `metric`; `name`, for people; `value`; `error` and `error_name`, its uncertainty; `settings`, all that
the value depends on; `made`, when and with which versions. Measured again, an entry replaces the one before.

Which weights a number is of is said by their fingerprint: in the settings of an entry, beside those of a table. Entries
and tables hold a checksum of themselves, as a digit that damage has changed is a digit still.
"""

import datetime
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from ddpm_jax.runs.trained_model import WEIGHTS, are_same, unsigned
from ddpm_jax.runtime import files, foreign_files

FILE = "metrics.json"
_CHECKSUM = "sha256"
_WRITTEN = ("metric", "name", "value", "error", "error_name")
_FIELDS = {*_WRITTEN, "settings"}


class Score(NamedTuple):
    """One number.

    Attributes:
        metric: as `--metrics` calls it.
        name: for people, with the number of samples where it matters: 'FID@1000'.
        value: the number.
        error: its uncertainty; None if there is none to be had from one measurement.
        error_name: 'standard error', or 'deviation' over splits or subsets.
        table: JSON values that the number is taken from or stands for; None if there is nothing more to say.
        file: where the table is kept; None if nowhere.
    """

    metric: str
    name: str
    value: float
    error: float | None = None
    error_name: str = ""
    table: dict[str, Any] | None = None
    file: str | None = None

    def __str__(self) -> str:
        """Formats the number and its uncertainty."""
        return f"{self.value:.6g}" + ("" if self.error is None else f" ± {self.error:.2g} ({self.error_name})")


def read(file: Path) -> list[dict[str, Any]]:
    """Reads the entries of a file, none if it is not there.

    Raises:
        ValueError: if it is damaged, or holds anything but entries.
    """
    if not file.is_file():
        return []
    with foreign_files.reading(file, "is no list of scores"):
        entries = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(entries, list) or not all(entry.keys() >= _FIELDS for entry in entries):
            raise ValueError(f"its entries must have {', '.join(sorted(_FIELDS))}")
        entries = [_checked(entry, repr(entry["name"])) for entry in entries]
        for entry in entries:
            _check_types(entry)
    return entries


def _check_types(entry: dict[str, Any]) -> None:
    """Refuses an entry whose fields cannot be those of a score.

    Raises:
        AttributeError, ValueError: for it.
    """
    images, reference = entry["settings"].get("samples", entry["settings"]), entry["settings"].get("reference") or {}
    numbers = [entry["value"], *(value for value in (entry.get("error"),) if value is not None)]
    counts = [value for value in map(images.get, ("step", "count", "num_images")) if value is not None]
    texts = [entry["metric"], entry["name"], reference.get("name", "")]
    for values, kind in ((numbers, (int, float)), (counts, int), (texts, str)):
        if wrong := [value for value in values if not isinstance(value, kind)]:
            raise ValueError(f"{wrong[0]!r:.50} in its entry {entry['name']!r:.50} is of the wrong type")


def find(file: Path, *, settings: dict[str, Any]) -> list[Score]:
    """Finds the scores that were measured with these settings before; those of images hold a hash of all of them."""
    entries = [entry for entry in read(file) if are_same(entry["settings"], settings, or_unsigned=True)]
    return [Score(**{field: entry[field] for field in _WRITTEN}) for entry in entries]


def write(file: Path, scores: Sequence[Score], *, settings: dict[str, Any]) -> None:
    """Writes scores that were measured with these settings, in place of those that were there."""
    made = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "versions": {name: importlib.metadata.version(name) for name in ("ddpm-jax", "jax", "numpy")}
        | {"python": platform.python_version()},
    }
    names = {score.name for score in scores}
    new = [
        {field: getattr(score, field) for field in _WRITTEN} | {"settings": settings, "made": made} for score in scores
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with files.one_at_a_time(file, doing="written"):  # what another command writes meanwhile stays
        kept = [
            entry for entry in read(file)
            if entry["name"] not in names or not are_same(entry["settings"], settings, or_unsigned=True)
        ]  # fmt: skip
        entries = [_with_checksum(entry) for entry in kept + new]
        files.write_atomically(file, json.dumps(entries, indent=1) + "\n")


def read_table(file: Path, settings: dict[str, Any], *, weights: str, or_unsigned: bool) -> dict[str, Any] | None:
    """Reads a table that was measured with these settings; None if there is none.

    Args:
        file: of the table.
        settings: JSON values that it depends on.
        weights: the fingerprint of those that it must be of.
        or_unsigned: whether a table that is older than fingerprints counts; see `TrainedModel.owns`.

    Raises:
        ValueError: if there is one of another model, or of nobody knows which.
    """
    if not file.is_file():
        return None
    table = read_json(file, "is no table")
    theirs = table.get(WEIGHTS)
    if theirs != weights and not (theirs is None and or_unsigned):
        whose = "does not say of which weights it is" if theirs is None else f"is of the weights {theirs}"
        raise ValueError(f"{file} {whose}, and these are {weights}: choose another folder, or delete it.")
    return table if table.get("settings") == unsigned(settings) else None


def write_table(file: Path, settings: dict[str, Any], *, weights: str, **table: Any) -> dict[str, Any]:
    """Writes a table that `read_table` finds, and returns it."""
    table = {"settings": unsigned(settings), WEIGHTS: weights, **table}
    files.write_atomically(file, json.dumps(_with_checksum(table), indent=1) + "\n")
    return table


def read_json(file: Path, refusal: str) -> dict[str, Any]:
    """Reads a table, whatever it is of; one that is older than checksums is taken as it is.

    Raises:
        ValueError: with `refusal`, as `foreign_files.reading`, if it is damaged.
        OSError: if it cannot be read.
    """
    with foreign_files.reading(file, refusal):
        return _checked(json.loads(file.read_text(encoding="utf-8")), "it")


def _with_checksum(values: dict[str, Any]) -> dict[str, Any]:
    return values | {_CHECKSUM: hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]}


def _checked(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Returns values without their checksum; raises a ValueError where it is another."""
    unchecked = {key: value for key, value in values.items() if key != _CHECKSUM}
    if _CHECKSUM in values and values != _with_checksum(unchecked):
        raise ValueError(f"{name} is not as it was written")
    return unchecked
