"""The results of a benchmark: as JSON to keep, and as Markdown to read."""

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple


class Measured(NamedTuple):
    """One row: the values of all rounds."""

    values: list[float]
    unit: str  # 's/step', 's', 'images/s', 'GiB'


class Ratio(NamedTuple):
    """What the rows are compared for."""

    value: float
    at_least: float | None = None  # the goal, where there is one
    at_most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most


@dataclasses.dataclass
class Report:
    """All that one benchmark says."""

    title: str
    settings: dict[str, Any]  # what was run: batch, precision, steps
    rows: dict[str, Measured] = dataclasses.field(default_factory=dict)
    ratios: dict[str, Ratio] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, seconds: dict[str, list[float]], unit: str) -> None:
        """Adds a row for each contender."""
        self.rows.update({name: Measured(values, unit) for name, values in seconds.items()})


def to_json(report: Report, environment: dict[str, Any]) -> dict[str, Any]:
    """What is kept."""
    return {
        "title": report.title,
        "environment": environment,
        "settings": report.settings,
        "rows": {name: _summary(row) for name, row in report.rows.items()},
        "ratios": {
            name: {"value": r.value, "at_least": r.at_least, "at_most": r.at_most, "met": r.met}
            for name, r in report.ratios.items()
        },
        "notes": report.notes,
    }


def markdown(kept: dict[str, Any]) -> str:
    """Formats the report that `to_json` wrote as tables."""
    env = kept["environment"]
    device = f"{env['devices']} x {env['device']}" if env["devices"] > 1 else env["device"]
    settings = ", ".join(f"{name} {value}" for name, value in kept["settings"].items())
    variables = "".join(f", {name}={value}" for name, value in env["variables"].items())
    begin, end = (f"{load:.1f}" for load in env["load_average"])
    lines = [
        f"## {kept['title']}",
        "",
        f"{device}, {env['cores']} cores ({env['processor']}){variables}, {env['date']}, "
        f"commit {env['commit'][:10] or 'unknown'}{' with changes' if env['dirty'] else ''}; "
        f"load average {begin} before and {end} after. {settings}.",
        "",
        "| | best | median | worst | |",
        "|---|---:|---:|---:|---|",
    ]
    for name, row in kept["rows"].items():
        # Of seconds and bytes the least is the best, of images a second the most.
        best, worst = ("max", "min") if row["unit"].endswith("/s") else ("min", "max")
        lines.append(
            f"| {name} | {_round(row[best])} | {_round(row['median'])} | {_round(row[worst])} | {row['unit']} |"
        )
    if kept["ratios"]:
        lines += ["", "| | | goal |", "|---|---:|---|"]
    for name, ratio in kept["ratios"].items():
        lines.append(f"| {name} | {_round(ratio['value'])} | {_goal(ratio)} |")
    return "\n".join([*lines, *(f"\n{note}" for note in kept["notes"])]) + "\n"


def write_tables(folder: Path) -> Path:
    """Writes README.md of the folder: the tables of all results in it."""
    tables = [markdown(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    path = folder / "README.md"
    path.write_text("# Results\n\nWritten by `python -m benchmarks`; do not edit.\n\n" + "\n".join(tables))
    return path


def _summary(row: Measured) -> dict[str, Any]:
    return {
        "unit": row.unit,
        "min": min(row.values),
        "median": statistics.median(row.values),
        "max": max(row.values),
        "values": row.values,
    }


def _goal(ratio: dict[str, Any]) -> str:
    if ratio["met"] is None:
        return ""
    bound = f"≥ {ratio['at_least']:g}" if ratio["at_least"] is not None else f"≤ {ratio['at_most']:g}"
    return f"{bound}: {'met' if ratio['met'] else '**missed**'}"


def _round(value: float) -> str:
    """Three significant digits, or all of a larger number."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
