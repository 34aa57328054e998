"""The paper's tables and figures from work folders: `python -m ddpm_jax.paper runs/cifar10 [runs/...] [--figures]`."""

import argparse
import json
import sys
from pathlib import Path

from ddpm_jax.evaluation import bound, image_sets, progressive, quality
from ddpm_jax.metrics import inception
from ddpm_jax.paper import figures, tables
from ddpm_jax.runs import workdir
from ddpm_jax.runs.resumable import Stopped
from ddpm_jax.runtime import compilation_cache, files

_IMAGES = 1000  # of Figures 5 and 10


def write(folders: list[Path], out: Path, *, draw: bool) -> str:
    """Writes tables.md and tables.json to `out`, and returns what tables.md says.

    Raises:
        FileNotFoundError: if a folder is no work folder, or has no checkpoint to draw with.
        ValueError: if its checkpoints cannot be read.
    """
    runs = [tables.read_run(folder) for folder in folders]
    found = tables.all_tables(runs)
    parts = [table.as_markdown() for table in found]
    pictures = {run.name: [str(path) for path in pictures_of(run, draw=draw)] for run in runs}
    for name, paths in pictures.items():
        if paths:
            parts.append("\n".join([f"## Figures: {name}", "", *(f"![{Path(path).stem}]({path})\n" for path in paths)]))
    text = "\n\n".join(parts) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    files.write_atomically(out / "tables.md", text)
    as_json = {"tables": [table.as_json() for table in found], "figures": pictures}
    files.write_atomically(out / "tables.json", json.dumps(as_json, indent=1) + "\n")
    return text


def pictures_of(run: tables.Run, *, draw: bool) -> list[Path]:
    """The figures of a work folder; what is missing of Figures 5 to 10 and the neighbours is drawn, if asked for."""
    samples, measured = run.folder / workdir.SAMPLES, run.folder / workdir.TABLES
    if draw:
        loaded = workdir.load(run.folder)
        for mode in figures.MODES:
            if not list(samples.glob(f"{mode}_step{loaded.step}_{loaded.weights}_*.png")):
                figures.draw(loaded, run.folder, mode)
        if not list(measured.glob(f"rate_distortion_step{loaded.step}_*.png")):
            draw_figure_5(loaded, measured)
        if not list(measured.glob(f"progressive_*_step{loaded.step}_*.png")):
            draw_figure_10(loaded, measured)
    drawn = [path for mode in figures.MODES for path in sorted(samples.glob(f"{mode}_*.png"))]
    return [path.absolute() for path in (*sorted(measured.glob("*.png")), *drawn)]


def draw_figure_5(loaded: workdir.Loaded, folder: Path) -> None:
    """Of some test images; evaluate.py --metrics=rd takes all."""
    config, split = loaded.experiment.config, "test"
    count = min(_IMAGES, len(loaded.experiment.load_data(split)))
    size = config.sample.batch_size
    task = bound.make_task(folder, loaded, split=split, num_images=count, batch_size=size, seed=config.sample.seed)
    bound.draw(task, bound.bound(task))


def draw_figure_10(loaded: workdir.Loaded, folder: Path) -> None:
    """Of some samples, with Inception's features if its weights can be had, else a classifier's."""
    config = loaded.experiment.config.sample
    training_set = image_sets.training_set(loaded.experiment)
    try:
        extractor = inception.extractor()
    except OSError as error:
        print(f"Figure 10 is drawn with a classifier's features: {error}")
        extractor = quality.classifier_extractor(*training_set)
    settings = dict(batch_size=config.batch_size)
    reference = quality.reference_of(extractor, image_sets.of_source(*training_set), **settings)
    progressive.table(loaded, folder, extractor, reference, num_samples=_IMAGES, seed=config.seed, **settings)


def main() -> int:
    """Runs the command and says what went wrong in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m ddpm_jax.paper", description=__doc__)
    parser.add_argument("workdir", nargs="+", type=Path, help="a folder of train.py, measured with evaluate.py")
    parser.add_argument("--out", type=Path, default=Path("report"), help="the folder to write to (default: report)")
    parser.add_argument(
        "--figures", action="store_true",
        help=f"draw what is missing of Figures 5 to 10 and the neighbours; 5 and 10 of {_IMAGES} images",
    )  # fmt: skip
    args = parser.parse_args()
    compilation_cache.enable()
    try:
        print(write(args.workdir, args.out, draw=args.figures))
        print(f"Written to {args.out / 'tables.md'} and {args.out / 'tables.json'}.")
    except Stopped as stopped:
        print(stopped)
        return stopped.exit_code
    except (ValueError, OSError) as error:
        print(f"python -m ddpm_jax.paper: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
