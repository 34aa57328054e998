"""Samples on disk: uint8 [N, H, W, C] as `arr_0` of an .npz, the layout that published evaluators read.

A `SampleSpec` says what a set of samples depends on. It names the file, decides what may be continued, and is written
beside scores.
"""

import dataclasses
import functools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddpm_jax import images, parallel, sampling
from ddpm_jax.runs import workdir
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.runtime import foreign_files

_GRID_IMAGES = 100


@dataclasses.dataclass(frozen=True)
class SampleSpec:
    """The identity of a set of samples: all that image i depends on, besides i.

    Attributes:
        step: of training.
        weights: 'raw', 'ema' for the average with the config's decay, or another average by its full name.
        seed: of the samples.
        clip: whether the predicted x_0 was clipped at every step.
        data: the name of the data set that the model was trained on.
        num_timesteps: of the chain.
    """

    step: int
    weights: str
    seed: int
    clip: bool
    data: str
    num_timesteps: int

    @property
    def name(self) -> str:
        """Returns the part of a file name that tells these samples from others of the same work folder."""
        return f"step{self.step}_{self.weights}_seed{self.seed}" + ("" if self.clip else "_noclip")

    def metadata(self) -> dict[str, Any]:
        """Returns the JSON values that are written beside scores of these samples."""
        return {"images": "drawn", **dataclasses.asdict(self)}


def sample_spec(model: TrainedModel, *, seed: int) -> SampleSpec:
    """Returns the identity of the samples that `model` draws with a seed."""
    config = model.experiment.config
    return SampleSpec(
        step=model.step, weights=model.short_weights, seed=seed, clip=config.sample.clip, data=config.data.name,
        num_timesteps=model.experiment.process.num_timesteps,
    )  # fmt: skip


def default_path(folder: Path, spec: SampleSpec, *, num_samples: int) -> Path:
    """Returns the path of samples in a work folder, named by all that they depend on."""
    return folder / workdir.SAMPLES / f"{spec.name}_{num_samples}.npz"


@functools.lru_cache(maxsize=4)
def mapped_sample(experiment: Experiment) -> Callable[[Any, jax.Array], np.ndarray]:
    """Returns `(replicated params, keys [B]) -> uint8 [B, H, W, C]`, mapped over all devices and compiled once."""
    return parallel.map_batches(lambda params, keys: images.to_uint8(experiment.sample(params, keys)))


def draw_in_memory(experiment: Experiment, params: Any, *, num_samples: int, batch_size: int, seed: int) -> np.ndarray:
    """Draws images 0 to N - 1 of the seed, uint8 [N, H, W, C]; every process calls it alike, and all have them.

    Raises:
        signals.Stopped: if a signal requested it.
    """
    sample = mapped_sample(experiment)
    batches = np.array_split(np.arange(num_samples), -(-num_samples // batch_size))
    return np.concatenate([sample(params, sampling.image_keys(seed, indices)) for indices in batches])


def draw(model: TrainedModel, path: Path, *, num_samples: int, batch_size: int, seed: int) -> None:
    """Draws images 0 to N - 1 of the seed, and a grid of the first, unless they are there; continues where it stopped.

    Every process calls it alike; process 0 alone touches files.

    Raises:
        ValueError: if what is there unfinished was begun with other settings.
        signals.Stopped: if a signal requested it.
    """
    if parallel.agree(path.is_file):
        print(f"These samples are there already: {path}")
        return
    spec = sample_spec(model, seed=seed)
    shape = (num_samples, *model.experiment.image_shape)
    samples = ResumableArray(path, settings=dataclasses.asdict(spec), shape=shape, dtype=np.uint8)
    params, sample = parallel.replicate(model.params), mapped_sample(model.experiment)
    samples.fill(lambda indices: sample(params, sampling.image_keys(seed, indices)), batch_size=batch_size)
    parallel.agree(lambda: _publish(samples, path))
    print(f"Images: {path}\nGrid of the first {min(_GRID_IMAGES, num_samples)}: {path.with_suffix('.png')}")


def _publish(samples: ResumableArray, path: Path) -> None:
    """Writes the .npz and the grid of a whole set, and removes what it was filled in."""
    images.save_png(path.with_suffix(".png"), images.grid(samples.array[:_GRID_IMAGES]))
    unfinished = path.with_suffix(".unfinished")
    with zipfile.ZipFile(unfinished, "w") as archive:  # as np.savez writes it, but never in memory
        archive.write(samples.file, "arr_0.npy")
    unfinished.replace(path)
    samples.remove()


def read(path: Path) -> np.ndarray:
    """Reads the images of an .npz, ours or another's: its `arr_0`, or its only array of images.

    Returns:
        uint8 [N, H, W, C]; grey images may lack their C.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no uint8 images.
    """
    with foreign_files.open_npz(path, "is no .npz with images as `arr_0`") as arrays:
        name = "arr_0" if "arr_0" in arrays or len(arrays) != 1 else next(iter(arrays))
        pixels = arrays[name]
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise ValueError(f"{path} must hold uint8 [N, H, W, C], and has {pixels.dtype} {list(pixels.shape)}.")
    return pixels
