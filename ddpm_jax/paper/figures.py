"""The paper's figures of a work folder, as files (Ho et al. 2020, Figures 6 to 9, 14 to 16).

Named by all that they depend on: WORKDIR/samples/<mode>_<name of the samples>.png.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ddpm_jax import images, parallel
from ddpm_jax.metrics import neighbours
from ddpm_jax.paper import generation
from ddpm_jax.runs import sample_files, workdir

_FRAMES, _STRIP_COLUMNS = 51, 11
_NEIGHBOURS, _NEIGHBOUR_ROWS = 8, 10
_PIECE = 4096  # training images at a time
_ROWS = 10  # of a figure, or its columns, where nothing else is asked for

MODES = ("progressive", "shared_latents", "interpolate", "neighbours")


def draw(
    loaded: workdir.Loaded,
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
        loaded: the model.
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
    """
    config = loaded.experiment.config.sample
    num_images = num_images or (config.num_samples if mode == "neighbours" else _ROWS)
    common: dict[str, Any] = dict(
        num_images=num_images, batch_size=batch_size or config.batch_size, seed=config.seed if seed is None else seed
    )
    samples = sample_files.default_path(folder, loaded, num_samples=num_images, seed=common["seed"])
    path = out or samples.with_name(f"{mode}_{samples.name}").with_suffix(".png")
    match mode:
        case "progressive":
            progressive(loaded, path, **common)
        case "shared_latents":
            shared_latents(loaded, path, **common)
        case "interpolate":
            interpolations(loaded, path, sources=sources, **common)
        case "neighbours":
            nearest_neighbours(loaded, path, samples=samples, crop=crop, **common)
    return path


def progressive(loaded: workdir.Loaded, path: Path, **settings: int) -> None:
    """Figures 6 and 14: a strip and an animation of the predicted x_0."""
    timesteps = generation.evenly(loaded.experiment.process.num_timesteps, _FRAMES)
    params = parallel.replicate(loaded.params)
    table = generation.progressive(loaded.experiment, params, timesteps=timesteps, **settings)  # [N, K, H, W, C]
    _save_table(path, table[:, sorted(set(np.linspace(0, len(timesteps) - 1, _STRIP_COLUMNS).round().astype(int)))])
    animation = path.with_suffix(".webp")
    images.save_animation(animation, np.stack([images.grid(table[:, k]) for k in range(len(timesteps))]))
    print(f"Animation: {animation}")


def shared_latents(loaded: workdir.Loaded, path: Path, **settings: int) -> None:
    """Figure 7."""
    num_steps = generation.parts(loaded.experiment.process.num_timesteps, (1.0, 0.75, 0.5, 0.25))
    params = parallel.replicate(loaded.params)
    _save_table(path, generation.shared_latents(loaded.experiment, params, num_steps=num_steps, **settings))


def interpolations(
    loaded: workdir.Loaded, path: Path, *, num_images: int, seed: int, sources: list[str] | None, **settings: int
) -> None:
    """Figures 8 and 9: several pairs by T / 2 steps, and the first by 0 to T."""
    made, params = loaded.experiment, parallel.replicate(loaded.params)
    source = made.load_data()
    if not sources:
        indices = np.random.default_rng(seed).integers(len(source), size=2 * num_images)
    elif len(sources) % 2 or not all(text.isdecimal() and int(text) < len(source) for text in sources):
        raise ValueError(f"--sources={','.join(sources)} must be pairs of numbers in 0..{len(source) - 1}.")
    else:
        indices = np.array([int(text) for text in sources])
    pairs = source.read(indices)[0].reshape(-1, 2, *made.image_shape)
    draw = functools.partial(generation.interpolations, made, params, seed=seed, **settings)
    _save_table(path, draw(pairs=pairs, num_steps=generation.parts(made.process.num_timesteps, (0.5,))))
    eighths = generation.parts(made.process.num_timesteps, np.arange(9) / 8)
    _save_table(path.with_stem(f"{path.stem}_coarse_to_fine"), draw(pairs=pairs[:1], num_steps=eighths))


def nearest_neighbours(
    loaded: workdir.Loaded, path: Path, *, samples: Path, num_images: int, batch_size: int, seed: int, crop: int
) -> None:
    """Figures 15 and 16, and how many of the samples are copies."""
    made = loaded.experiment
    source = made.load_data()
    if crop > min(made.image_shape[:2]):
        raise ValueError(f"--crop={crop} must be at most {min(made.image_shape[:2])}, the side of the images.")
    sample_files.draw(loaded, samples, num_samples=num_images, batch_size=min(batch_size, num_images), seed=seed)
    drawn = sample_files.read(samples)
    # A model that was trained on mirrored images can copy those too.
    queries = np.concatenate([drawn, drawn[:, :, ::-1]]) if made.config.data.flip else drawn
    pieces = (source.read(np.arange(i, min(i + _PIECE, len(source))))[0] for i in range(0, len(source), _PIECE))
    bar = tqdm(pieces, total=-(-len(source) // _PIECE), unit="piece")
    found = neighbours.nearest(queries, bar, k=_NEIGHBOURS, crop=crop, spread=parallel.pmap_batches)
    sides = found.distances[:, 0].reshape(-1, num_images).argmin(axis=0)  # 1 where the mirrored one is nearer
    distances, indices = (array[sides * num_images + np.arange(num_images)] for array in found)

    ratios = neighbours.copy_ratios(distances)
    rows = np.argsort(ratios, kind="stable")[:_NEIGHBOUR_ROWS]
    nearest = source.read(indices[rows].ravel())[0].reshape(*indices[rows].shape, *made.image_shape)
    _save_table(path, np.concatenate([drawn[rows, None], nearest], axis=1))
    np.savez(path.with_suffix(".npz"), distances=distances, indices=indices)
    copies = int((ratios < neighbours.COPY_RATIO).sum())
    print(
        f"Copies of a training image, at less than a third of the distance to the next: {copies} of {num_images} "
        f"({copies / num_images:.2%}). Exact repeats among the samples: {neighbours.num_repeats(drawn)}. Median "
        f"distance to the nearest training image: {np.median(distances[:, 0]):.1f} (in pixels of 0..255)."
    )


def _save_table(path: Path, table: np.ndarray) -> None:
    """Writes a table of images [rows, columns, H, W, C] uint8 as one picture."""
    images.save_png(path, images.grid(table.reshape(-1, *table.shape[2:]), columns=table.shape[1]))
    print(f"{table.shape[0]} rows of {table.shape[1]} images: {path}")
