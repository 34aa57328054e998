"""Draws images from a trained model (Ho et al. 2020, Algorithm 2), given its work folder alone.

    python sample.py --workdir=runs/cifar10 --num_samples=50000 --batch_size=256 --seed=0 [--mode=...]

Writes WORKDIR/samples/<name>.npz (uint8 [N, H, W, C] as `arr_0`, the layout that published evaluators read) and a
grid of the first images. Image i depends on the seed and i alone. Run again, it continues where it stopped.

Other modes write WORKDIR/samples/<mode>_<name>.png, the paper's figures of what the model does:

    progressive     the x_0 predicted on the way, a row an image; and the same as an animation, .webp  (Figures 6, 14)
    shared_latents  images that share x_t, a row for each t of 1000, 750, 500, 250 (of T = 1000)       (Figure 7)
    interpolate     between two training images by 500 steps, a row a pair (Figure 8); and the first
                    pair by 1000, 875, ..., 0 steps, in ..._coarse_to_fine.png                         (Figure 9)
    neighbours      samples and the training images nearest to them in pixel space, those first that are most like
                    copies, and the rate of copies; the samples are those of the default mode     (Figures 15, 16)
"""

import functools
import sys
import zipfile
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from ddpm_jax import figures, images, neighbours, parallel, sampling, workdir
from ddpm_jax.resumable import Rows, Stopped

_GRID_IMAGES = 100
_ROWS = 10  # of a figure, or its columns, where --num_samples does not say
_FRAMES, _STRIP_COLUMNS = 51, 11
_NEIGHBOURS = 8
_PIECE = 4096  # training images at a time

_MODE = flags.DEFINE_enum(
    "mode", "samples", ["samples", "progressive", "shared_latents", "interpolate", "neighbours"], "What to draw."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run of train.py.")
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", None, f"How many images (interpolate: pairs). Default: the config's; of a figure {_ROWS}.",
    lower_bound=1,
)  # fmt: skip
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time. Default: the config's.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", None, "Another seed, other images. Default: the config's.")
_STEP = flags.DEFINE_integer("step", None, "Training step of the checkpoint. Default: the newest.")
_EMA = flags.DEFINE_bool("ema", None, "Use the averaged weights. Default: the config's.")
_SOURCES = flags.DEFINE_list(
    "sources", None, "interpolate: the numbers of the training images, two a pair. Default: drawn by the seed."
)
_CROP = flags.DEFINE_integer(
    "crop", 0, "neighbours: compare the square of this side at the centre (paper: 100 for CelebA-HQ). 0: all.",
    lower_bound=0,
)  # fmt: skip
_OUT = flags.DEFINE_string(
    "out", None, "Path of the .npz, or of the figure. Default: one in WORKDIR/samples, named by the settings."
)
flags.mark_flag_as_required("workdir")


def weights(loaded: workdir.Loaded) -> str:
    """Which of the two the flags ask for."""
    return "ema" if (loaded.experiment.config.sample.ema if _EMA.value is None else _EMA.value) else "raw"


def draw_all(loaded: workdir.Loaded, path: Path, *, num_samples: int, batch_size: int, seed: int) -> None:
    """Draws what is not there yet and writes it."""
    if path.is_file():
        print(f"They are there already: {path}")
        return
    settings = dict(step=loaded.step, weights=weights(loaded), seed=seed)
    shape = (num_samples, *loaded.experiment.image_shape)
    drawn = Rows(path, settings=settings, shape=shape, dtype=np.uint8)
    draw = parallel.pmap_batches(lambda params, keys: images.to_uint8(loaded.experiment.sample(params, keys)))
    params = parallel.replicate(loaded.params)
    drawn.fill(lambda indices: draw(params, sampling.image_keys(seed, indices)), batch_size=batch_size)
    images.save_png(path.with_suffix(".png"), images.grid(drawn.array[:_GRID_IMAGES]))
    with zipfile.ZipFile(path.with_suffix(".unfinished"), "w") as archive:  # as np.savez writes it, but never in memory
        archive.write(drawn.file, "arr_0.npy")
    path.with_suffix(".unfinished").replace(path)
    drawn.remove()
    print(f"Images: {path}\nGrid of the first {min(_GRID_IMAGES, num_samples)}: {path.with_suffix('.png')}")


def draw_progressive(loaded: workdir.Loaded, path: Path, **settings: int) -> None:
    """Figures 6 and 14: a strip and an animation of the predicted x_0."""
    timesteps = figures.evenly(loaded.experiment.process.num_timesteps, _FRAMES)
    params = parallel.replicate(loaded.params)
    table = figures.progressive(loaded.experiment, params, timesteps=timesteps, **settings)  # [N, K, H, W, C]
    save_table(path, table[:, sorted(set(np.linspace(0, len(timesteps) - 1, _STRIP_COLUMNS).round().astype(int)))])
    animation = path.with_suffix(".webp")
    images.save_animation(animation, np.stack([images.grid(table[:, k]) for k in range(len(timesteps))]))
    print(f"Animation: {animation}")


def draw_shared_latents(loaded: workdir.Loaded, path: Path, **settings: int) -> None:
    """Figure 7."""
    num_steps = figures.parts(loaded.experiment.process.num_timesteps, (1.0, 0.75, 0.5, 0.25))
    params = parallel.replicate(loaded.params)
    save_table(path, figures.shared_latents(loaded.experiment, params, num_steps=num_steps, **settings))


def draw_interpolations(
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
    draw = functools.partial(figures.interpolations, made, params, seed=seed, **settings)
    save_table(path, draw(pairs=pairs, num_steps=figures.parts(made.process.num_timesteps, (0.5,))))
    eighths = figures.parts(made.process.num_timesteps, np.arange(9) / 8)
    save_table(path.with_stem(f"{path.stem}_coarse_to_fine"), draw(pairs=pairs[:1], num_steps=eighths))


def draw_neighbours(
    loaded: workdir.Loaded, path: Path, *, samples: Path, num_samples: int, batch_size: int, seed: int, crop: int
) -> None:
    """Figures 15 and 16, and how many of the samples are copies."""
    made = loaded.experiment
    source = made.load_data()
    if crop > min(made.image_shape[:2]):
        raise ValueError(f"--crop={crop} must be at most {min(made.image_shape[:2])}, the side of the images.")
    draw_all(loaded, samples, num_samples=num_samples, batch_size=batch_size, seed=seed)
    with np.load(samples) as arrays:
        drawn = arrays["arr_0"]
    # A model that was trained on mirrored images can copy those too.
    queries = np.concatenate([drawn, drawn[:, :, ::-1]]) if made.config.data.flip else drawn
    pieces = (source.read(np.arange(i, min(i + _PIECE, len(source))))[0] for i in range(0, len(source), _PIECE))
    bar = tqdm(pieces, total=-(-len(source) // _PIECE), unit="piece")
    found = neighbours.nearest(queries, bar, k=_NEIGHBOURS, crop=crop, spread=parallel.pmap_batches)
    sides = found.distances[:, 0].reshape(-1, num_samples).argmin(axis=0)  # 1 where the mirrored one is nearer
    distances, indices = (array[sides * num_samples + np.arange(num_samples)] for array in found)

    ratios = neighbours.copy_ratios(distances)
    rows = np.argsort(ratios, kind="stable")[:_ROWS]
    nearest = source.read(indices[rows].ravel())[0].reshape(*indices[rows].shape, *made.image_shape)
    save_table(path, np.concatenate([drawn[rows, None], nearest], axis=1))
    np.savez(path.with_suffix(".npz"), distances=distances, indices=indices)
    copies = int((ratios < neighbours.COPY_RATIO).sum())
    print(
        f"Copies of a training image, at less than a third of the distance to the next: {copies} of {num_samples} "
        f"({copies / num_samples:.2%}). Exact repeats among the samples: {neighbours.num_repeats(drawn)}. Median "
        f"distance to the nearest training image: {np.median(distances[:, 0]):.1f} (in pixels of 0..255)."
    )


def save_table(path: Path, table: np.ndarray) -> None:
    """Writes a table of images [rows, columns, H, W, C] uint8 as one picture."""
    images.save_png(path, images.grid(table.reshape(-1, *table.shape[2:]), columns=table.shape[1]))
    print(f"{table.shape[0]} rows of {table.shape[1]} images: {path}")


def draw(loaded: workdir.Loaded, mode: str) -> None:
    """Does what the flags ask for."""
    settings = loaded.experiment.config.sample
    rows = settings.num_samples if mode in ("samples", "neighbours") else _ROWS
    num_samples = _NUM_SAMPLES.value or rows
    batch_size = _BATCH_SIZE.value or settings.batch_size
    seed = settings.seed if _SEED.value is None else _SEED.value
    used = weights(loaded)
    print(f"{num_samples} images, step {loaded.step}, {used} weights, seed {seed}, {parallel.describe()}.")
    folder, name = Path(_WORKDIR.value) / workdir.SAMPLES, f"step{loaded.step}_{used}_seed{seed}_{num_samples}.npz"
    samples = Path(_OUT.value or folder / name) if mode == "samples" else folder / name
    figure = Path(_OUT.value or folder / f"{mode}_{name}").with_suffix(".png")
    whole = dict(num_samples=num_samples, batch_size=min(batch_size, num_samples), seed=seed)
    table = dict(num_images=num_samples, batch_size=batch_size, seed=seed)
    match mode:
        case "samples":
            draw_all(loaded, samples, **whole)
        case "progressive":
            draw_progressive(loaded, figure, **table)
        case "shared_latents":
            draw_shared_latents(loaded, figure, **table)
        case "interpolate":
            draw_interpolations(loaded, figure, sources=_SOURCES.value, **table)
        case "neighbours":
            draw_neighbours(loaded, figure, samples=samples, crop=_CROP.value, **whole)


def main(argv: list[str]) -> int:
    """Runs the command and says what went wrong in a sentence."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    logging.set_verbosity(logging.WARNING)
    try:
        draw(workdir.load(_WORKDIR.value, step=_STEP.value, ema=_EMA.value), _MODE.value)
    except Stopped as stopped:
        print(stopped)
        return stopped.exit_code
    except (ValueError, OSError) as error:
        print(f"sample.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    app.run(main)
