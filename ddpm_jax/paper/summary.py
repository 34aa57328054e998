"""The paper's tables and figures of any number of work folders, as one Markdown and one JSON file."""

import functools
import json
import os
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

from ddpm_jax import parallel
from ddpm_jax.evaluation import image_sets, quality, scoring
from ddpm_jax.paper import figures, tables
from ddpm_jax.runs import trained_model, workdir
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.runtime import files

NUM_IMAGES = 1000  # of Figures 5 and 10


def write(folders: Sequence[Path], out: Path) -> str:
    """Writes tables.md and tables.json to `out`, with paths of pictures from there, and returns the text of tables.md.

    Raises:
        FileNotFoundError: if a folder is no work folder.
    """
    runs = [tables.read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    runs = [run if names.count(run.name) == 1 else run._replace(name=str(run.folder)) for run in runs]
    all_tables = tables.all_tables(runs)
    parts, pictures = [table.as_markdown() for table in all_tables], {}
    for run in runs:
        pictures[run.name] = [os.path.relpath(path, out.resolve()) for path in _pictures_of(run.folder.resolve())]
        if paths := pictures[run.name]:
            links = [f"![{Path(path).stem}]({urllib.parse.quote(path)})\n" for path in paths]
            parts.append("\n".join([f"## Figures: {run.name}", "", *links]))
    text = "\n\n".join(parts).rstrip("\n") + "\n"
    out.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out / "tables.md", text)
    as_json = {"tables": [table.as_json() for table in all_tables], "figures": pictures}
    files.write_atomically(out / "tables.json", json.dumps(as_json, indent=1) + "\n")
    return text


def draw_missing_figures(folder: Path) -> list[str]:
    """Draws those of Figures 5 to 10 and the neighbours that a work folder lacks; every process calls it alike.

    Returns:
        A sentence for each that could not be drawn, on which the others do not depend.

    Raises:
        FileNotFoundError: if there is no checkpoint to draw with.
        ValueError: if the checkpoints cannot be read.
    """
    model = trained_model.load(folder)
    samples, measured = folder / workdir.SAMPLES, folder / workdir.TABLES
    step, weights = model.step, model.short_weights
    wanted = [
        (mode, samples, f"{mode}_step{step}_{weights}_*.png", functools.partial(figures.draw, model, folder, mode))
        for mode in figures.MODES
    ] + [
        ("Figure 5", measured, f"rate_distortion_step{step}_*.png", lambda: _draw_figure_5(model, measured)),
        ("Figure 10", measured, f"progressive_*_step{step}_*.png", lambda: _draw_figure_10(model, measured)),
    ]  # fmt: skip
    problems = []
    for name, where, pattern, draw in wanted:
        try:
            if _is_missing(where, pattern):
                draw()
        except (ValueError, OSError, ArithmeticError) as error:
            problems.append(f"{folder}: {name} was not drawn: {error}")
    return problems


def _is_missing(folder: Path, pattern: str) -> bool:
    return parallel.agree(lambda: not list(folder.glob(pattern)))


def _pictures_of(folder: Path) -> list[Path]:
    samples, measured = folder / workdir.SAMPLES, folder / workdir.TABLES
    generated = [path for mode in figures.MODES for path in sorted(samples.glob(f"{mode}_*.png"))]
    return [*sorted(measured.glob("*.png")), *generated]


def _draw_figure_5(model: TrainedModel, folder: Path) -> None:
    """Draws it from some test images; ddpm-evaluate --metrics=rd takes all."""
    images = image_sets.share_split(model.experiment, "test")
    seed, count = model.experiment.config.sample.seed, min(NUM_IMAGES, len(images))
    (score,) = scoring.evaluate(model, ["rd"], images=images, num_images=count, seed=seed, folder=folder)
    parallel.agree(lambda: str(figures.draw_rate_distortion(score)))


def _draw_figure_10(model: TrainedModel, folder: Path) -> None:
    """Draws it from some samples, with Inception's features if its weights can be had, else a classifier's."""
    metric = "progressive"
    try:
        quality.inception_extractor()
    except (OSError, parallel.ProcessError) as error:
        print(f"Figure 10 is drawn with a classifier's features: {error}")
        metric = "progressive_classifier"
    seed = model.experiment.config.sample.seed
    (score,) = scoring.evaluate(model, [metric], num_samples=NUM_IMAGES, seed=seed, folder=folder)
    parallel.agree(lambda: str(figures.draw_predictions(score)))
