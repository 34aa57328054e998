"""What a run is trained with: versions, commit, settings of JAX, and devices.

With others, the same steps round differently. WORKDIR/trained_with.json lists what each part of a run was trained with.
"""

import json
from pathlib import Path
from typing import Any

import jax

from ddpm_jax import data, parallel
from ddpm_jax.arguments import listed
from ddpm_jax.runs.workdir import TRAINED_WITH
from ddpm_jax.runtime import files, foreign_files, program

_SHOWN = 5  # changes


def facts() -> dict[str, str]:
    """Returns what this program computes with, by names for people; the CPU's only where it computes."""
    cpu = {"processor": program.processor()} if jax.default_backend() == "cpu" else {}
    software = program.versions() | {"commit": program.commit()} | program.jax_settings()
    return software | {"devices": parallel.describe()} | cpu


def read(directory: Path, step: int) -> list[dict[str, Any]]:
    """Reads what a run was trained with up to `step`; [] where that was not noted.

    Returns:
        The facts of each part, in order, and its "from_step": the number of steps made before.

    Raises:
        ValueError: if the file is damaged.
        OSError: if it cannot be read.
    """
    path = directory / TRAINED_WITH
    if not path.exists():
        return []
    with foreign_files.reading(path, "does not say what the run was trained with: delete it to go on without"):
        parts = json.loads(path.read_text(encoding="utf-8"))
        return [dict(part) for part in parts if part["from_step"] < step]  # what came later is done anew


def note(directory: Path, step: int) -> None:
    """Writes down what a run is trained with after `step`, and prints what has changed; for process 0.

    Raises:
        ValueError, OSError: as `read` does.
    """
    parts, now = read(directory, step), facts()
    before = {name: fact for name, fact in parts[-1].items() if name != "from_step"} if parts else {}
    if before != now:
        parts.append({"from_step": step} | now)
    if before and (changes := data.differences(before, now)):
        print(f"From here on it is trained with other than before: {foreign_files.printable(listed(changes, _SHOWN))}.")
    files.write_atomically(directory / TRAINED_WITH, json.dumps(parts, indent=2) + "\n")
