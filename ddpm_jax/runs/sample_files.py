"""Samples on disk: uint8 [N, H, W, C] as `arr_0` of an .npz, the layout that published evaluators read."""

import zipfile
from pathlib import Path

import numpy as np

from ddpm_jax import images, parallel, sampling
from ddpm_jax.runs import workdir
from ddpm_jax.runs.resumable import Rows

_GRID_IMAGES = 100


def default_path(folder: Path, loaded: workdir.Loaded, *, num_samples: int, seed: int) -> Path:
    """Where the samples of a work folder lie, named by all that they depend on."""
    name = f"step{loaded.step}_{loaded.weights}_seed{seed}_{num_samples}.npz"
    return folder / workdir.SAMPLES / name


def draw(loaded: workdir.Loaded, path: Path, *, num_samples: int, batch_size: int, seed: int) -> None:
    """Draws images 0 to N - 1 of the seed, and a grid of the first, unless they are there; continues where it stopped.

    Raises:
        ValueError: if what is there unfinished was begun with other settings.
        signals.Stopped: if a signal asked for it.
    """
    if path.is_file():
        print(f"They are there already: {path}")
        return
    settings = dict(step=loaded.step, weights=loaded.weights, seed=seed)
    shape = (num_samples, *loaded.experiment.image_shape)
    drawn = Rows(path, settings=settings, shape=shape, dtype=np.uint8)
    sample = parallel.pmap_batches(lambda params, keys: images.to_uint8(loaded.experiment.sample(params, keys)))
    params = parallel.replicate(loaded.params)
    drawn.fill(lambda indices: sample(params, sampling.image_keys(seed, indices)), batch_size=batch_size)
    images.save_png(path.with_suffix(".png"), images.grid(drawn.array[:_GRID_IMAGES]))
    unfinished = path.with_suffix(".unfinished")
    with zipfile.ZipFile(unfinished, "w") as archive:  # as np.savez writes it, but never in memory
        archive.write(drawn.file, "arr_0.npy")
    unfinished.replace(path)
    drawn.remove()
    print(f"Images: {path}\nGrid of the first {min(_GRID_IMAGES, num_samples)}: {path.with_suffix('.png')}")


def read(path: Path) -> np.ndarray:
    """The images of an .npz, ours or another's: its `arr_0`, or its only array of images.

    Returns:
        uint8 [N, H, W, C]; grey images may lack their C.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no uint8 images.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            name = "arr_0" if "arr_0" in arrays.files or len(arrays.files) != 1 else arrays.files[0]
            pixels = arrays[name]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no .npz with images as `arr_0`: {error}.") from error
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise ValueError(f"{path} must hold uint8 [N, H, W, C], and has {pixels.dtype} {list(pixels.shape)}.")
    return pixels
