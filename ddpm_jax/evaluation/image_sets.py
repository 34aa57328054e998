"""Images to be measured, from wherever: a data set, a folder or tar, an .npz; with what tells one set from another."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax import data
from ddpm_jax.runs import sample_files, workdir
from ddpm_jax.runs.experiment import Experiment

# How a float image becomes the uint8 that is scored, here and in every .npz of ours: `images.to_uint8`.
ROUNDING = "nearest of 0..255 to 127.5 (x + 1), half to even, clipped"

_HASHED = 50_000  # images at most, evenly spread
_PIECE = 1000


class ImageSet(NamedTuple):
    """N images in some order.

    Attributes:
        about: JSON values that say what they are; sets of other images have other values.
        shape: (N, H, W, C).
        read: int [n] in [0, N) -> uint8 [n, H, W, C].
    """

    about: dict[str, Any]
    shape: tuple[int, int, int, int]
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        """N."""
        return self.shape[0]


def of_array(pixels: np.ndarray, about: dict[str, Any]) -> ImageSet:
    """A set of images [N, H, W, C] uint8 in memory, or mapped from disk."""
    return _hashed(about, pixels.shape, lambda indices: np.asarray(pixels[indices]))


def of_source(source: data.Source, name: str, *, labels: bool = False) -> ImageSet:
    """A split of a data set; `name` says which. With `labels`, `about` depends on those too."""
    about, shape = {"images": name}, (len(source), *source.image_shape)
    return _hashed(about, shape, lambda indices: source.read(indices)[0], source if labels else None)


def training_set(made: Experiment) -> tuple[data.Source, str]:
    """What a model is trained on, and its name.

    Raises:
        FileNotFoundError: if it is no longer there.
    """
    settings = made.config.data
    name = Path(settings.data_dir).name if settings.name == "image_folder" else settings.name
    return made.load_data(), f"{name}:{settings.split}"


def about_drawn(loaded: workdir.Loaded, seed: int) -> dict[str, Any]:
    """What samples of a model depend on, but for their number."""
    made = loaded.experiment
    return dict(
        images="drawn", data=made.config.data.name, step=loaded.step, weights=loaded.weights, seed=seed,
        num_timesteps=made.process.num_timesteps, clip=made.config.sample.clip,
    )  # fmt: skip


def drawn(loaded: workdir.Loaded, folder: Path, *, num_samples: int, batch_size: int, seed: int) -> ImageSet:
    """Samples of a model, drawn where they are not there yet; see `sample_files.draw`.

    Args:
        loaded: the model.
        folder: its work folder.
        num_samples: N.
        batch_size: images at a time.
        seed: of the samples.
    """
    path = sample_files.default_path(folder, loaded, num_samples=num_samples, seed=seed)
    sample_files.draw(loaded, path, num_samples=num_samples, batch_size=min(batch_size, num_samples), seed=seed)
    return of_array(sample_files.read(path), about_drawn(loaded, seed))


def open_set(name: str, *, image_shape: tuple[int, int, int] | None, **where: Any) -> ImageSet:
    """Opens what a user names: the path of an .npz (`sample_files.read`), or what `open_source` opens.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds no images.
    """
    if name.endswith(".npz"):
        return of_array(sample_files.read(Path(name)), {"images": Path(name).name})
    return of_source(*open_source(name, image_shape=image_shape, **where))


def open_source(
    name: str, *, image_shape: tuple[int, int, int] | None, data_dir: str = "", memory_limit_gib: float = 4.0
) -> tuple[data.Source, str]:
    """Opens a folder or tar of images, or a data set.

    Args:
        name: the path, or `NAME` or `NAME:SPLIT` of a data set (`data.load`); a split that is not said is 'train'.
        image_shape: (H, W, C) to bring the images to; None: that of the first.
        data_dir: of a TFDS data set.
        memory_limit_gib: see `data.load`.

    Returns:
        The images, and their name for people.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds no images.
    """
    if Path(name).exists():
        kind, split, data_dir, shown = "image_folder", "train", name, Path(name).name
    else:
        kind, _, split = name.partition(":")
        split = split or "train"
        shown = f"{kind}:{split}"
    height, width, channels = image_shape or data.native_shape(kind, split=split, data_dir=data_dir)
    source = data.load(
        kind, split=split, data_dir=data_dir, image_size=(height, width), channels=channels,
        memory_limit_gib=memory_limit_gib,
    )  # fmt: skip
    return source, shown


def _hashed(
    about: dict[str, Any],
    shape: tuple[int, ...],
    read: Callable[[np.ndarray], np.ndarray],
    labelled: data.Source | None = None,
) -> ImageSet:
    digest = hashlib.sha256(repr(tuple(shape)).encode())
    indices = np.unique(np.linspace(0, shape[0] - 1, min(shape[0], _HASHED)).round().astype(np.int64))
    for start in range(0, len(indices), _PIECE):
        piece = indices[start : start + _PIECE]
        for array in labelled.read(piece) if labelled else (read(piece),):
            digest.update(array.tobytes())
    about = about | {"count": shape[0], "shape": list(shape[1:]), "sha256": digest.hexdigest()[:16]}
    return ImageSet(about, tuple(shape), read)
