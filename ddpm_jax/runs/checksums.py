"""The SHA-256 of each file of a checkpoint, in `checksums.json` beside them, so that damage is noticed before reading.

A checkpoint may be somebody else's: what its checksums do not name, or what lies outside of it, is not opened.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE = "checksums.json"


class DamagedError(ValueError):
    """A folder is not as it was when its checksums were written; the message says what."""


def write(folder: Path) -> None:
    """Writes the checksums of all files below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    checksums = {str(path.relative_to(folder)): _checksum(path) for path in files}
    (folder / FILE).write_text(json.dumps(checksums, indent=1))


def verify(folder: Path, *, items: Iterable[str]) -> None:
    """Compares the files of some items, which are folders in `folder`, with their checksums.

    Raises:
        DamagedError: unless all files are there, all have checksums, and those are right.
        OSError: if they cannot be read.
    """
    root, checksums = folder.resolve(), _read(folder)
    for item in items:
        found = {os.path.relpath(path, root) for path in _paths(root / item)} if (root / item).is_dir() else set()
        listed = {name for name in checksums if name.split("/")[0] == item}
        if not listed or found != listed:
            raise DamagedError(f"{min(found ^ listed, default=item)} is missing, or {FILE} does not list it")
        for name in sorted(listed):
            if not ((root / name).is_file() and _checksum(root / name) == checksums[name]):  # a pipe would block
                raise DamagedError(f"{name} is damaged")


def _paths(folder: Path) -> Iterator[str]:
    """Yields all that lies below a folder and is none itself; of a link it is the link that lies there."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _paths(Path(entry.path))
            else:
                yield entry.path


def _read(folder: Path) -> dict[str, str]:
    root, path = folder.resolve(), folder / FILE
    if not path.is_file():
        raise DamagedError(f"it has no {FILE}")
    try:
        checksums = json.loads(path.read_bytes())
        outside = [name for name in checksums if not (root / name).resolve().is_relative_to(root)]
    except (ValueError, TypeError, RuntimeError) as error:  # no JSON, no names, links in a circle
        raise DamagedError(f"{FILE} is damaged") from error
    if outside:
        raise DamagedError(f"{FILE} names {outside[0]!r:.100}, which lies outside")
    if not isinstance(checksums, dict):
        raise DamagedError(f"{FILE} is damaged")
    return checksums


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
