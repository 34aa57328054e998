"""Edited images of a work folder, as pictures: WORKDIR/samples/<mode>_<name of the samples>_<the edit>.png."""

import dataclasses
from pathlib import Path

import numpy as np

from ddpm_jax import parallel
from ddpm_jax.editing import edits, masks
from ddpm_jax.evaluation import image_sets
from ddpm_jax.runs import image_tables, sample_files, workdir
from ddpm_jax.runs.trained_model import TrainedModel

MODES = ("inpaint", "image_to_image")
_ROWS, _VARIANTS = 10, 6
_LONGEST_NAME = 60  # characters; of a longer part of a file name, the hash


@dataclasses.dataclass(frozen=True)
class Edit:
    """What is done to which images.

    Attributes:
        mode: one of `MODES`.
        sources: the numbers of the images in the split; None: drawn by the seed.
        split: of the data set; '': the one that was trained on.
        mask: of inpaint, see `masks.drawn_anew`.
        jump_length, num_resamples: of inpaint, see `samplers.repaint`.
        strength: of image_to_image, from 0 to 1.
    """

    mode: str
    sources: list[str] | None = None
    split: str = ""
    mask: str = "center"
    jump_length: int = 10
    num_resamples: int = 10
    strength: float = 0.5

    def name(self, anew: np.ndarray | None) -> str:
        """Returns the part of a file name that tells this edit from others; `anew` is what the mask stands for."""
        sources = f"_sources{_short('-'.join(self.sources))}" if self.sources else ""
        split = f"_{_short(self.split)}" if self.split else ""
        if self.mode == "inpaint":
            mask = (
                self.mask
                if self.mask in masks.MASKS
                else workdir.name_part(np.packbits(anew).tobytes().hex(), longest=0)
            )
            return f"{split}{sources}_{mask}_jump{self.jump_length}x{self.num_resamples}"
        return f"{split}{sources}_strength{self.strength:g}"


def _short(text: str) -> str:
    plain = all(character.isalnum() or character == "-" for character in text)
    return workdir.name_part(text, longest=_LONGEST_NAME if plain else 0)


def draw(
    model: TrainedModel,
    folder: Path,
    edit: Edit,
    *,
    out: Path | None = None,
    num_images: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
) -> Path:
    """Draws a picture of edited images, a row an image with six variants; every process calls it alike.

    Args:
        model: the trained model.
        folder: its work folder.
        edit: what is done to which images.
        out: of the picture; None: in the work folder, by its name.
        num_images: how many; None: 10, or the given ones.
        batch_size: images at a time; None: the config's.
        seed: of the noise, and of the choice of images; None: the config's.

    Returns:
        The path of the picture.

    Raises:
        ValueError, FileNotFoundError: if there is no such image, split or mask, or the sampler does not fit.
    """
    if model.experiment.condition_fn is not None and not model.experiment.config.sample.labels:
        model = model.sampling_with(labels="none", guidance=0.0, guidance_weights="", guidance_step=0)
    config, experiment = model.experiment.config.sample, model.experiment
    seed = config.seed if seed is None else seed
    height, width, _ = experiment.image_shape
    anew = masks.drawn_anew(edit.mask, height=height, width=width) if edit.mode == "inpaint" else None
    of_split = image_sets.share_split(experiment, edit.split or experiment.config.data.split)
    indices = _indices(edit, len(of_split), count=num_images or _ROWS, seed=seed)
    samples = sample_files.default_path(
        folder, sample_files.sample_spec(model, seed=seed), num_samples=len(indices)
    )  # fmt: skip
    path = out or samples.with_name(f"{edit.mode}_{samples.stem}{edit.name(anew)}.png")
    common = dict(
        given=of_split.read(indices), variants=_VARIANTS, seed=seed, batch_size=batch_size or config.batch_size
    )  # fmt: skip
    params = parallel.replicate(model.sampling_params)
    if edit.mode == "inpaint":
        table = edits.inpainted(
            experiment, params, anew=anew, jump_length=edit.jump_length, num_resamples=edit.num_resamples, **common
        )
        what, first = f"Inpainted, {edit.mask} drawn anew", ["given", "known"]
    else:
        table = edits.image_to_image(experiment, params, strength=edit.strength, **common)
        what, first = f"Drawn from images, strength {edit.strength:g}", ["given"]
    image_tables.save(
        path, table, title=sample_files.title(model, what, seed=seed), left=[str(i) for i in indices],
        above=[*first, *(f"drawn {j + 1}" for j in range(_VARIANTS))],
    )  # fmt: skip
    return path


def _indices(edit: Edit, n: int, *, count: int, seed: int) -> np.ndarray:
    if not edit.sources:
        return np.random.default_rng(seed).integers(n, size=count)
    if not all(text.isdecimal() and int(text) < n for text in edit.sources):
        raise ValueError(f"--sources={','.join(edit.sources)} must be numbers in 0..{n - 1}.")
    return np.array([int(text) for text in edit.sources])
