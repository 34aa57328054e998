"""Images to be measured, from wherever: a data set, a folder or tar, an .npz; with what tells one set from another."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ddpm_jax import data, parallel
from ddpm_jax.runs import sample_files
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.trained_model import TrainedModel

# How a float image becomes the uint8 that is scored, here and in every .npz of ours: `images.to_uint8`.
ROUNDING = "nearest of 0..255 to 127.5 (x + 1), half to even, clipped"

_HASHED = 50_000  # images at most, evenly spread
_PIECE = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """N images in some order.

    Attributes:
        metadata: JSON values that say what they are; sets of other images have other values.
        shape: (N, H, W, C).
        read: int [n] in [0, N) -> uint8 [n, H, W, C].
        read_labels: int [n] in [0, N) -> int32 [n], their classes, or -1; None if they have none.
    """

    metadata: dict[str, Any]
    shape: tuple[int, int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    read_labels: Callable[[np.ndarray], np.ndarray] | None = None

    def __len__(self) -> int:
        """Returns N."""
        return self.shape[0]


def from_array(pixels: np.ndarray, metadata: dict[str, Any]) -> ImageSet:
    """Makes a set of images [N, H, W, C] uint8 in memory, or mapped from disk."""
    return _hashed(metadata, pixels.shape, lambda indices: np.asarray(pixels[indices]))


def from_source(source: data.Source, name: str, *, labels: bool = False) -> ImageSet:
    """Makes a set of a split of a data set; `name` says which. With `labels`, the metadata depend on those too."""
    shape = (len(source), *source.image_shape)
    images = _hashed({"images": name}, shape, lambda indices: source.read(indices)[0], source if labels else None)
    return dataclasses.replace(images, read_labels=_labels_of(source))


def _labels_of(source: data.Source) -> Callable[[np.ndarray], np.ndarray] | None:
    return (lambda indices: source.read(indices)[1]) if source.class_names else None


def share(open_images: Callable[[], ImageSet]) -> ImageSet:
    """Opens a set on process 0, for all: every process then calls `read` alike, and process 0 reads.

    Raises:
        ValueError, OSError: as `open_images()` does, on all processes.
    """
    opened: list[ImageSet] = []

    def open_and_describe() -> list:
        opened.append(open_images())
        return [opened[0].metadata, opened[0].shape, opened[0].read_labels is not None]

    metadata, shape, labelled = parallel.agree(open_and_describe)

    def read(indices: np.ndarray) -> np.ndarray:
        empty = np.zeros((len(indices), *shape[1:]), np.uint8)
        return parallel.broadcast(parallel.raise_on_all(lambda: opened[0].read(indices) if opened else empty))

    def read_labels(indices: np.ndarray) -> np.ndarray:
        empty = np.zeros(len(indices), np.int32)
        return parallel.broadcast(parallel.raise_on_all(lambda: opened[0].read_labels(indices) if opened else empty))

    return ImageSet(metadata, tuple(shape), read, read_labels if labelled else None)


def named_split(experiment: Experiment, split: str | None = None) -> tuple[data.Source, str]:
    """Opens a split of a model's data set, by default the one trained on, and names it, as in "digits:test".

    Raises:
        ValueError: if there is no such split.
        FileNotFoundError: if the data set is no longer there.
    """
    settings = experiment.config.data
    name = Path(settings.data_dir).name if settings.name == "image_folder" else settings.name
    return experiment.load_data(split), f"{name}:{split or settings.split}"


def share_split(experiment: Experiment, split: str) -> ImageSet:
    """Opens a split of the data set that a model was trained on, for all processes, without hashing its images.

    Raises:
        ValueError: if there is no such split.
        FileNotFoundError: if the data set is not there.
    """

    def open_split() -> ImageSet:
        source = experiment.load_data(split)
        metadata = {"data": experiment.config.data.name, "split": split}
        shape = (len(source), *source.image_shape)
        return ImageSet(metadata, shape, lambda indices: source.read(indices)[0], _labels_of(source))

    return share(open_split)


def draw(model: TrainedModel, *, num_samples: int, batch_size: int, seed: int) -> ImageSet:
    """Draws samples of a model into memory; all processes have them.

    Raises:
        signals.Stopped: if a signal requested it.
    """
    params = parallel.replicate(model.sampling_params)
    pixels = sample_files.draw_in_memory(
        model.experiment, params, num_samples=num_samples, batch_size=batch_size, seed=seed
    )
    return _drawn(model, pixels, seed=seed)


def _drawn(model: TrainedModel, pixels: np.ndarray, *, seed: int) -> ImageSet:
    """Makes a set of samples 0 to N - 1 of a seed, with the classes that were asked for."""
    images = from_array(pixels, sample_files.sample_spec(model, seed=seed).metadata())
    read_labels = None if model.experiment.condition_fn is None else model.experiment.sample_labels
    return dataclasses.replace(images, read_labels=read_labels)


def draw_to_file(model: TrainedModel, workdir: Path, *, num_samples: int, batch_size: int, seed: int) -> ImageSet:
    """Draws samples of a model into its work folder where they are not there yet; see `sample_files.draw`."""
    spec = sample_files.sample_spec(model, seed=seed)
    path = sample_files.default_path(workdir, spec, num_samples=num_samples)
    sample_files.draw(model, path, num_samples=num_samples, batch_size=min(batch_size, num_samples), seed=seed)
    return share(lambda: _drawn(model, sample_files.read(path), seed=seed))


def open_set(name: str, *, image_shape: tuple[int, int, int] | None, **where: Any) -> ImageSet:
    """Opens what a user names: the path of an .npz (`sample_files.read`), or what `open_source` opens.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds no images.
    """
    if name.endswith(".npz"):
        return from_array(sample_files.read(Path(name)), {"images": Path(name).name})
    return from_source(*open_source(name, image_shape=image_shape, **where))


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
    metadata: dict[str, Any],
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
    identity = {"count": shape[0], "shape": list(shape[1:]), "sha256": digest.hexdigest()[:16]}
    return ImageSet(metadata | identity, tuple(shape), read)
