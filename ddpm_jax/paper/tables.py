"""The paper's tables with our numbers beside its own, from what evaluate.py left in any number of work folders.

An empty cell is a number that the paper does not print, or that nobody has measured here.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from ddpm_jax.evaluation import bits_per_dim, results
from ddpm_jax.paper import published
from ddpm_jax.runs import workdir

_RATE_DISTORTION = ("rate, ours (bits/dim)", "RMSE, ours (0-255)")
_MEASURED = "{data} {split}, {num_images} images, step {step}"  # of a table's settings
_LARGE_CH = 192  # of the larger LSUN Bedroom model; the other has 128


class Run(NamedTuple):
    """A work folder and the scores that were measured there."""

    name: str
    folder: Path
    config: ml_collections.ConfigDict
    entries: list[dict[str, Any]]  # of metrics.json


class Cell(NamedTuple):
    """One of our numbers."""

    value: float
    error: float | None
    error_name: str  # what the error is
    count: int | None  # samples, or images of the data set, that it is of
    step: int | None  # of training

    def __str__(self) -> str:
        """Formats the number, its error, and the images and step that it is of."""
        number = f"{self.value:.4g}" if self.error is None else f"{self.value:.4g} ± {self.error:.2g}"
        return f"{number} ({self.count} images, step {self.step})"


class Table(NamedTuple):
    """Rows of cells: text, numbers of the paper, `Cell`s, None."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Any]]

    def as_markdown(self) -> str:
        """Formats the table as Markdown, with empty cells for None."""
        lines = [f"## {self.title}", "", _row(self.columns), _row(["---"] * len(self.columns))]
        return "\n".join([*lines, *(_row(["" if cell is None else str(cell) for cell in row]) for row in self.rows)])

    def as_json(self) -> dict[str, Any]:
        """Returns JSON values, with None for empty cells and objects for our own numbers."""
        rows = [[cell._asdict() if isinstance(cell, tuple) else cell for cell in row] for row in self.rows]
        return {"title": self.title, "columns": self.columns, "rows": rows}


def read_run(folder: Path) -> Run:
    """Reads a work folder.

    Raises:
        FileNotFoundError: if it is no work folder.
    """
    config = workdir.read_config(folder)
    return Run(folder.resolve().name, folder, config, results.read(folder / workdir.TABLES / results.FILE))


def data_of(run: Run) -> str:
    """Returns which of the paper's images a run is on; '': others."""
    return published.images_of(run.config.data) or ""


def find(run: Run, metric: str, **settings: Any) -> Cell | None:
    """Finds our number: of the last training step, then of the most images, then of the weights that the run's config
    names, then the newest; averaged over the seeds with which the same weights were measured in the same way.

    Args:
        run: where to look.
        metric: as `--metrics` calls it.
        settings: what its settings must say besides; `reference` by its split.
    """
    entries = [entry for entry in run.entries if entry["metric"] == metric and _fits(run, entry["settings"], settings)]
    if not entries:
        return None

    def order(numbered: tuple[int, dict[str, Any]]) -> tuple[int, int, bool, int]:
        number, entry = numbered
        usual = _images(entry).get("weights") == run.config.sample.weights
        return _step(entry) or 0, _count(entry) or 0, usual, number

    _, last = max(enumerate(entries), key=order)
    same = [entry for entry in entries if _apart_from_seed(entry) == _apart_from_seed(last)]
    if len(same) == 1:
        return Cell(last["value"], last["error"], last["error_name"], _count(last), _step(last))
    values = [entry["value"] for entry in same]
    deviation = float(np.std(values, ddof=1))
    return Cell(float(np.mean(values)), deviation, f"deviation of {len(values)} seeds", _count(last), _step(last))


def table_1(runs: Sequence[Run]) -> Table:
    """Makes Table 1, CIFAR-10: Inception score, FID against the training set, bits/dim."""
    rows = [
        [row.name, *map(_paper, (row.inception_score, row.fid, row.nll_test, row.nll_train)), None, None, None, None]
        for row in published.TABLE_1
    ]
    for run in runs:
        if data_of(run) == "cifar10":
            ours = [
                find(run, "is"), _fid(run), find(run, "bpd", split="test"), find(run, "bpd", split="train"),
            ]  # fmt: skip
            name = f"ours{', conditional' if run.config.model.num_classes else ''}: {run.name}"
            rows.append([name, None, None, None, None, *ours])
    columns = ("IS", "FID", "NLL test", "NLL train")
    return Table(
        "Table 1: CIFAR-10 (NLL in bits/dim, an upper bound for diffusion models)",
        ("model", *(f"{name}, paper" for name in columns), *(f"{name}, ours" for name in columns)),
        rows,
    )


def table_2(runs: Sequence[Run]) -> Table:
    """Makes Table 2, the ablation on CIFAR-10; of several runs of one objective the first."""
    rows = []
    for row in published.TABLE_2:
        wanted = (row.mean_type, row.var_type, row.loss_type)
        run = next(
            (
                run for run in runs
                if data_of(run) == "cifar10" and not run.config.model.num_classes
                and tuple(run.config.diffusion[name] for name in ("mean_type", "var_type", "loss_type")) == wanted
            ),
            None,
        )  # fmt: skip
        ours = [None, None, None] if run is None else [find(run, "is"), _fid(run), run.name]
        rows.append([row.name, _paper(row.inception_score), _paper(row.fid), *ours])
    columns = ("objective", "IS, paper", "FID, paper", "IS, ours", "FID, ours", "our run")
    return Table("Table 2: CIFAR-10, objectives (the paper's empty cells: unstable)", columns, rows)


def table_3(runs: Sequence[Run]) -> Table:
    """Makes Table 3: FID on LSUN."""
    sets = ("bedroom", "church", "cat")
    rows = [[row.name, *map(_paper, (row.bedroom, row.church, row.cat)), None, None, None] for row in published.TABLE_3]
    for run in runs:
        if data_of(run).startswith("lsun/"):
            name = data_of(run).removeprefix("lsun/")
            size = ", large" if run.config.model.ch == _LARGE_CH else ""
            ours = [_fid(run) if name == column else None for column in sets]
            rows.append([f"ours: {run.name}{size}", None, None, None, *ours])
    columns = ("model", *(f"{name}, paper" for name in sets), *(f"{name}, ours" for name in sets))
    return Table("Table 3: LSUN 256x256, FID", columns, rows)


def table_4(runs: Sequence[Run]) -> list[Table]:
    """Makes Table 4, rate and distortion on CIFAR-10, a table a run; without one, the paper's alone."""
    columns = ("reverse steps", "rate, paper", "RMSE, paper", *_RATE_DISTORTION)
    title = "Table 4: progressive coding, CIFAR-10 test set"
    measured = [(run, table) for run in runs if data_of(run) == "cifar10" and (table := _rate_distortion(run))]
    if not measured:
        return [
            Table(
                title,
                columns,
                [
                    [row.reverse_steps, f"{row.rate_bpd:.5f}", f"{row.rmse:.5f}", None, None]
                    for row in published.TABLE_4
                ],
            )
        ]
    tables = []
    for run, table in measured:
        settings, rows = table["settings"], []
        for theirs, ours in zip(published.TABLE_4, table["rate_distortion"], strict=True):
            steps = f"{theirs.reverse_steps}" + ("" if ours["reverse_steps"] == theirs.reverse_steps else
                                                 f" (ours: {ours['reverse_steps']})")  # fmt: skip
            rows.append([steps, f"{theirs.rate_bpd:.5f}", f"{theirs.rmse:.5f}", *_rate_and_rmse(ours)])
        tables.append(Table(f"{title}; ours: {run.name}, {_MEASURED.format_map(settings)}", columns, rows))
    return tables


def other_rate_distortions(runs: Sequence[Run]) -> list[Table]:
    """Makes a table of progressive coding for each run on other images than the paper's Table 4."""
    return [
        Table(
            f"Progressive coding: {run.name}, {_MEASURED.format_map(table['settings'])}",
            ("reverse steps", *_RATE_DISTORTION),
            [[row["reverse_steps"], *_rate_and_rmse(row)] for row in table["rate_distortion"]],
        )
        for run in runs
        if data_of(run) != "cifar10" and (table := _rate_distortion(run))
    ]


def _rate_and_rmse(row: dict[str, float]) -> tuple[str, str]:
    return tuple(f"{row[name]:.5f} ± {row[f'{error}_standard_error']:.5f}"
                 for name, error in (("rate_bpd", "rate"), ("rmse", "rmse")))  # fmt: skip


def other_scores(runs: Sequence[Run]) -> Table:
    """Makes a table of scores with no place in the paper: other data, a classifier's features, given samples."""
    rows = []
    for run in runs:
        for entry in run.entries:
            if not _has_a_place(run, entry):
                settings = entry["settings"]
                images = _images(entry)
                what = images.get("images") or " ".join(str(images.get(name, "")) for name in ("data", "split"))
                if (reference := settings.get("reference")) and not _is_split(run, reference, run.config.data.split):
                    what += f", against {reference['name']}"
                cell = Cell(entry["value"], entry["error"], entry["error_name"], _count(entry), _step(entry))
                rows.append([run.name, entry["name"], cell, what])
    return Table("Other scores", ("run", "score", "ours", "of"), rows)


def _has_a_place(run: Run, entry: dict[str, Any]) -> bool:
    """Tells whether a score may stand in Tables 1 to 3."""
    images, metric, settings = data_of(run), entry["metric"], entry["settings"]
    if metric == "fid":
        return bool(images) and _of_the_model(settings) and _is_split(run, settings.get("reference"), "train")
    return images == "cifar10" and metric in ("is", "bpd") and _of_the_model(settings)


def all_tables(runs: Sequence[Run]) -> list[Table]:
    """Makes those of Tables 1 to 4 that are about the images of a run, all without runs; and our other numbers."""
    images = {"cifar10", "lsun"} if not runs else {data_of(run).split("/")[0] for run in runs}
    cifar10 = [table_1(runs), table_2(runs)] if "cifar10" in images else []
    lsun = [table_3(runs)] if "lsun" in images else []
    coding = table_4(runs) if "cifar10" in images else []
    others = other_scores(runs)
    return [*cifar10, *lsun, *coding, *other_rate_distortions(runs), *([others] if others.rows else [])]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _paper(value: published.Value | float | None) -> str | None:
    """Formats a number as the paper prints it."""
    if not isinstance(value, published.Value):
        return None if value is None else f"{value:.2f}"
    return f"{value.value:.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def _fid(run: Run) -> Cell | None:
    return find(run, "fid", reference="train")


def _of_the_model(settings: dict[str, Any]) -> bool:
    return settings.get("samples", {}).get("images", "drawn") == "drawn"


def _fits(run: Run, settings: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return _of_the_model(settings) and all(
        _is_split(run, settings.get("reference"), value) if name == "reference" else settings.get(name) == value
        for name, value in wanted.items()
    )


def _is_split(run: Run, reference: dict[str, Any] | None, split: str) -> bool:
    """Tells whether a reference is a split of the images that a run is on, also by another name of the paper's."""
    images, _, theirs = (reference or {}).get("name", "").rpartition(":")
    same = images == published.own_name(run.config.data) or data_of(run) == published.images_named(images)
    return theirs == split and same


def _apart_from_seed(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of an entry without the seed, and without the images that came of it."""
    images = {name: value for name, value in _images(entry).items() if name not in ("seed", "sha256")}
    return {**entry["settings"], "samples": images} if "samples" in entry["settings"] else images


def _images(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of an entry that say which model and images it is of."""
    return entry["settings"].get("samples", entry["settings"])


def _step(entry: dict[str, Any]) -> int | None:
    return _images(entry).get("step")


def _count(entry: dict[str, Any]) -> int | None:
    return _images(entry).get("count" if "samples" in entry["settings"] else "num_images")


def _rate_distortion(run: Run) -> dict[str, Any] | None:
    """Finds the newest table of the bound, of the test set if there is one, of the most images."""
    tables = bits_per_dim.read_tables(run.folder / workdir.TABLES)

    def order(table: dict[str, Any]) -> tuple[int, bool, int]:
        settings = table["settings"]
        return settings["step"], settings["split"] == "test", settings["num_images"]

    return max(tables, key=order, default=None)
