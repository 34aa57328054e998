"""The paper's figures of a work folder, as files (Ho et al. 2020, Figures 5 to 10, 12, 14 and 15).

Named by all that they depend on: WORKDIR/samples/<mode>_<name of the samples>[_<what else is asked for>].png. Every
process calls `draw` alike; process 0 reads and writes the files.
"""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddpm_jax import images, parallel
from ddpm_jax.evaluation import image_sets
from ddpm_jax.evaluation.progressive import evenly_spaced
from ddpm_jax.evaluation.results import Score
from ddpm_jax.metrics import neighbours
from ddpm_jax.paper import generation
from ddpm_jax.runs import image_tables, sample_files, workdir
from ddpm_jax.runs.trained_model import TrainedModel

_FRAMES, _STRIP_COLUMNS = 51, 11
_NEIGHBOURS, _NEIGHBOUR_ROWS = 8, 10
_PIECE, _PIECE_BYTES = 4096, 2**27  # training images at a time: so many, or so much of larger ones
_LONGEST_SOURCES = 100  # characters of a file name; longer ones are hashed
_ROWS = 10  # of a figure, or its columns, where nothing else is asked for

MODES = ("progressive", "shared_latents", "interpolate", "neighbours")


def draw(
    model: TrainedModel,
    folder: Path,
    mode: str,
    *,
    out: Path | None = None,
    num_images: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    sources: list[str] | None = None,
    crop: int = 0,
) -> Path:
    """Draws one figure.

    Args:
        model: the trained model.
        folder: its work folder.
        mode: one of `MODES`.
        out: of the picture; None: in the work folder, by its name.
        num_images: how many (interpolate: pairs; neighbours: samples); None: 10, of neighbours the config's number.
        batch_size: images at a time; None: the config's.
        seed: of the noise; None: the config's.
        sources: interpolate: the numbers of the training images, two a pair; None: drawn by the seed.
        crop: neighbours: compare the square of this side at the centre; 0: all.

    Returns:
        The path of the picture.

    Raises:
        ValueError: for another sampler than the one that the figure is about.
    """
    if mode != "neighbours":
        model.experiment.check_whole_chain(f"--mode={mode}")
    if mode == "interpolate" and model.experiment.condition_fn is not None:
        model = model.sampling_with(labels="none", guidance=0.0, guidance_weights="", guidance_step=0)
    config = model.experiment.config.sample
    num_images = num_images or (config.num_samples if mode == "neighbours" else _ROWS)
    common: dict[str, Any] = dict(
        num_images=num_images, batch_size=batch_size or config.batch_size, seed=config.seed if seed is None else seed
    )
    spec = sample_files.sample_spec(model, seed=common["seed"])
    count = len(sources) // 2 if mode == "interpolate" and sources else num_images
    samples = sample_files.default_path(folder, spec, num_samples=count)
    path = out or samples.with_name(f"{mode}_{samples.stem}{_suffix(mode, sources=sources, crop=crop)}.png")
    match mode:
        case "progressive":
            progressive(model, path, **common)
        case "shared_latents":
            shared_latents(model, path, **common)
        case "interpolate":
            interpolations(model, path, sources=sources, **common)
        case "neighbours":
            nearest_neighbours(model, path, samples=samples, crop=crop, **common)
    return path


def _suffix(mode: str, *, sources: list[str] | None, crop: int) -> str:
    """Returns the end of a figure's name: settings that only this mode has, where they are not the default."""
    if mode == "interpolate" and sources:
        return f"_sources{workdir.name_part('-'.join(sources), longest=_LONGEST_SOURCES)}"
    return f"_crop{crop}" if mode == "neighbours" and crop else ""


def progressive(model: TrainedModel, path: Path, **settings: int) -> None:
    """Draws Figures 6 and 14: a strip and an animation of the predicted x_0."""
    timesteps = evenly_spaced(model.experiment.process.num_timesteps, _FRAMES)
    params = parallel.replicate(model.sampling_params)
    table = generation.progressive(model.experiment, params, timesteps=timesteps, **settings)  # [N, K, H, W, C]
    num_steps = [t + 1 for t in timesteps]  # the paper's t
    title = sample_files.title(model, "x_0 predicted from x_t", seed=settings["seed"])
    shown = sorted(set(np.linspace(0, len(timesteps) - 1, _STRIP_COLUMNS).round().astype(int)))
    image_tables.save(
        path, table[:, shown], title=title, corner="t", above=[str(num_steps[k]) for k in shown],
        left=[str(i) for i in range(len(table))],
    )  # fmt: skip
    animation = path.with_suffix(".webp")
    frames = [images.labelled_grid(table[:, k], title=f"{title}\nt = {steps}") for k, steps in enumerate(num_steps)]
    parallel.agree(lambda: images.save_animation(animation, np.stack(frames)))
    print(f"Animation: {animation}")


def shared_latents(model: TrainedModel, path: Path, **settings: int) -> None:
    """Draws Figure 7."""
    num_steps = generation.fractions_of(model.experiment.process.num_timesteps, (1.0, 0.75, 0.5, 0.25))
    params = parallel.replicate(model.sampling_params)
    table = generation.shared_latents(model.experiment, params, num_steps=num_steps, **settings)
    image_tables.save(
        path, table, title=sample_files.title(model, "Images that share x_t", seed=settings["seed"]),
        above=["x_t", *["x_0"] * (table.shape[1] - 1)], left=[f"t = {steps}" for steps in num_steps],
    )  # fmt: skip


def interpolations(
    model: TrainedModel, path: Path, *, num_images: int, seed: int, sources: list[str] | None, **settings: int
) -> None:
    """Draws Figures 8 and 9: several pairs by T / 2 steps, and the first by 0 to T."""
    experiment, params = model.experiment, parallel.replicate(model.sampling_params)
    training_images = image_sets.share_split(experiment, experiment.config.data.split)
    n = len(training_images)
    if not sources:
        indices = np.random.default_rng(seed).integers(n, size=2 * num_images)
    elif len(sources) % 2 or not all(text.isdecimal() and int(text) < n for text in sources):
        raise ValueError(f"--sources={','.join(sources)} must be pairs of numbers in 0..{n - 1}.")
    else:
        indices = np.array([int(text) for text in sources])
    pairs = training_images.read(indices).reshape(-1, 2, *experiment.image_shape)
    draw_pairs = functools.partial(generation.interpolations, experiment, params, seed=seed, **settings)
    num_timesteps = experiment.process.num_timesteps
    columns = dict(corner="lambda", above=["source", *(f"{weight:g}" for weight in generation.WEIGHTS), "source"])
    names = [f"{a}, {b}" for a, b in indices.reshape(-1, 2)]
    half = generation.fractions_of(num_timesteps, (0.5,))
    what = f"Between two training images at t = {half[0]}"
    table = draw_pairs(pairs=pairs, num_steps=half)
    image_tables.save(path, table, title=sample_files.title(model, what, seed=seed), left=names, **columns)
    eighths = generation.fractions_of(num_timesteps, np.arange(9) / 8)
    what = f"Between training images {indices[0]} and {indices[1]}"
    table = draw_pairs(pairs=pairs[:1], num_steps=eighths)
    image_tables.save(
        path.with_stem(f"{path.stem}_coarse_to_fine"), table, title=sample_files.title(model, what, seed=seed),
        left=[f"t = {steps}" for steps in eighths], **columns,
    )  # fmt: skip


def nearest_neighbours(
    model: TrainedModel, path: Path, *, samples: Path, num_images: int, batch_size: int, seed: int, crop: int
) -> None:
    """Draws Figures 12 and 15, and says how many of the samples are copies."""
    experiment = model.experiment
    if crop > min(experiment.image_shape[:2]):
        raise ValueError(f"--crop={crop} must be at most {min(experiment.image_shape[:2])}, the side of the images.")
    training_images = image_sets.share_split(experiment, experiment.config.data.split)
    if (count := len(training_images)) < _NEIGHBOURS:  # said before samples are drawn, which may take days
        raise ValueError(f"Nearest neighbours are {_NEIGHBOURS} training images, and data.split has {count}.")
    sample_files.draw(model, samples, num_samples=num_images, batch_size=min(batch_size, num_images), seed=seed)
    pixels = parallel.read_on_primary(lambda: {"pixels": sample_files.read(samples)})["pixels"]
    # A model that was trained on mirrored images can copy those too.
    queries = np.concatenate([pixels, pixels[:, :, ::-1]]) if experiment.config.data.flip else pixels
    size = min(_PIECE, max(1, _PIECE_BYTES // math.prod(experiment.image_shape)))
    starts = range(0, len(training_images), size)
    bar = tqdm(starts, unit="piece", disable=not parallel.is_primary())
    pieces = (training_images.read(np.arange(i, min(i + size, len(training_images)))) for i in bar)
    nearest = neighbours.nearest(queries, pieces, k=_NEIGHBOURS, crop=crop, map_fn=parallel.map_batches)
    sides = nearest.distances[:, 0].reshape(-1, num_images).argmin(axis=0)  # 1 where the mirrored one is nearer
    distances, indices = (array[sides * num_images + np.arange(num_images)] for array in nearest)

    ratios = neighbours.copy_ratios(distances)
    rows = np.argsort(ratios, kind="stable")[:_NEIGHBOUR_ROWS]
    shown = training_images.read(indices[rows].ravel()).reshape(*indices[rows].shape, *experiment.image_shape)
    what = "Samples and their nearest training images" + (f" by the central {crop} x {crop}" if crop else "")
    image_tables.save(
        path, np.concatenate([pixels[rows, None], shown], axis=1), title=sample_files.title(model, what, seed=seed),
        above=["sample", "nearest", *(["2nd", "3rd"] + [f"{k}th" for k in range(4, 10)])[: shown.shape[1] - 1]],
        left=[str(i) for i in rows],
        below=[["mirrored" if sides[i] else "", *(f"{distance:.1f}" for distance in distances[i])] for i in rows],
    )  # fmt: skip
    parallel.agree(lambda: np.savez(path.with_suffix(".npz"), distances=distances, indices=indices))
    copies = int((ratios < neighbours.COPY_RATIO).sum())
    print(
        f"Copies of a training image, at less than a third of the distance to the next: {copies} of {num_images} "
        f"({copies / num_images:.2%}). Exact repeats among the samples: {neighbours.num_repeats(pixels)}. Median "
        f"distance to the nearest training image: {np.median(distances[:, 0]):.1f} (in pixels of 0..255)."
    )


def draw_rate_distortion(score: Score) -> Path:
    """Draws Figure 5 beside the table of a score `rd`, on this process; returns the path."""
    from ddpm_jax.paper import plots

    path = Path(score.file)
    path = path.with_name(path.name.replace("bpd", "rate_distortion", 1)).with_suffix(".png")
    curves = score.table["by_t"]
    settings = score.table["settings"]
    plots.rate_distortion(
        path, rate_bpd=np.array(curves["rate_bpd"]), rmse=np.array(curves["rmse"]),
        title="{data} {split}, {num_images} images, step {step}, {weights} weights".format_map(settings),
        with_paper=settings["data"] == "cifar10",
    )  # fmt: skip
    return path


def draw_lengths(folder: Path, model: TrainedModel, scores: dict[float, Score]) -> Path:
    """Draws a score by the length of the average that it is of, on this process; returns the path."""
    from ddpm_jax.paper import plots

    name, metric = next((score.name, score.metric) for score in scores.values())
    path = folder / f"lengths_{metric}_step{model.step}.png"
    points = {length: (score.value, score.error) for length, score in scores.items()}
    title = f"{model.experiment.config.data.name}, step {model.step}"
    plots.score_by_length(path, points, name=name, title=title)
    return path


def draw_predictions(score: Score) -> Path:
    """Draws Figure 10 beside the table of a score of predictions, on this process; returns the path."""
    from ddpm_jax.paper import plots

    path, settings = Path(score.file).with_suffix(".png"), score.table["settings"]
    kind, num_samples = settings["extractor"]["name"].partition(":")[0], settings["samples"]["count"]
    title = "Predicted $x_0$, {data}, step {step}, {weights} weights".format_map(settings["samples"])
    plots.quality_by_step(path, score.table["rows"], kind=kind, num_samples=num_samples, title=title)
    return path
