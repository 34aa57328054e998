"""Samples on disk: uint8 [N, H, W, C] as `arr_0` of an .npz, the layout that published evaluators read.

A `SampleSpec` says what a set of samples depends on. It names the file, is written into it, decides what may be
continued, and is written beside scores.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import images, parallel, samplers, sampling
from ddpm_jax.runs import workdir
from ddpm_jax.runs.config import labels_name
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.resumable import ResumableArray
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.runtime import files, foreign_files

_GRID_IMAGES = 100
_LONGEST_LABELS = 40  # in a file's name
_SIGNATURE = b"ddpm_jax samples: "  # begins the comment of our zip, which its other readers pass over


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
        prng_impl: the generator of the random numbers.
        weights_sha256: `TrainedModel.fingerprint`: of another run, or of one that was trained anew, it is another.
        sampler: its name, see `samplers.by_name`.
        steps: how many of the timesteps it takes; 0: all.
        spacing: of those; '': the usual one of the sampler.
        eta: of ddim.
        threshold: the quantile of dynamic thresholding, which takes the place of clipping; 0: none.
        timesteps_sha256: 16 hex digits of the timesteps and variances, where those themselves are given; '': not.
        labels: 'all', 'none' or numbers, of which image i has number i modulo how many there are; '': of a model that
            knows no classes.
        guidance: the weight w, see `guidance`; by the network without its class, unless by other weights:
        guidance_weights: their name; '': none.
        guidance_step: their step of training; 0: none.
        guidance_sha256: as `weights_sha256`, of these.
        guidance_interval: 'FIRST,LAST', the timesteps with guidance; '': all.
    """

    step: int
    weights: str
    seed: int
    clip: bool
    data: str
    num_timesteps: int
    weights_sha256: str
    prng_impl: str = sampling.PRNG_IMPLS[0]
    sampler: str = "ancestral"
    steps: int = 0
    spacing: str = ""
    eta: float = 0.0
    threshold: float = 0.0
    timesteps_sha256: str = ""
    labels: str = ""
    guidance: float = 0.0
    guidance_weights: str = ""
    guidance_step: int = 0
    guidance_sha256: str = ""
    guidance_interval: str = ""

    @property
    def name(self) -> str:
        """Returns the part of a file name that tells these samples from others of the same work folder."""
        generator = "" if self.prng_impl == sampling.PRNG_IMPLS[0] else f"_{self.prng_impl}"
        sampler = "" if self.sampler == "ancestral" and not self.steps else f"_{self.sampler}{self.steps or ''}"
        spacing, eta = f"_{self.spacing}" if self.spacing else "", f"_eta{self.eta:g}" if self.eta else ""
        chosen = f"_timesteps-{self.timesteps_sha256[:8]}" if self.timesteps_sha256 else ""
        clip = f"_threshold{self.threshold:g}" if self.threshold else "" if self.clip else "_noclip"
        labels = workdir.name_part(self.labels.replace(",", "-"), longest=_LONGEST_LABELS)
        of_classes = f"_labels{labels}" if labels else ""
        guidance = f"_guidance{self.guidance:g}" if self.guidance else ""
        guidance += f"_by_step{self.guidance_step}_{self.guidance_weights}" if self.guidance_weights else ""
        interval = f"_t{self.guidance_interval.replace(',', '-')}" if self.guidance_interval else ""
        return (
            f"step{self.step}_{self.weights}_seed{self.seed}{generator}{clip}{sampler}{spacing}{eta}{chosen}"
            f"{of_classes}{guidance}{interval}"
        )

    def settings(self) -> dict[str, Any]:
        """Returns the JSON values that identify the samples; a field that has its default is as if it were not there,
        so that what was written before there was such a choice stays valid.
        """
        fields = dataclasses.fields(self)
        return {field.name: value for field in fields if (value := getattr(self, field.name)) != field.default}

    def metadata(self) -> dict[str, Any]:
        """Returns the JSON values that are written beside scores of these samples."""
        return {"images": "drawn", **self.settings()}


def sample_spec(model: TrainedModel, *, seed: int) -> SampleSpec:
    """Returns the identity of the samples that `model` draws with a seed."""
    config, sample = model.experiment.config, model.experiment.config.sample
    num_timesteps = model.experiment.process.num_timesteps
    steps = (len(sample.timesteps) or sample.steps) % num_timesteps  # all of them are 0
    chosen = json.dumps([sample.timesteps, sample.variances])
    usual = (samplers.SAMPLERS[sample.sampler], "") if steps or sample.sampler != "ancestral" else samplers.SPACINGS
    interval = sample.guidance_interval if sample.guidance else ()
    return SampleSpec(
        step=model.step, weights=model.short_weights, seed=seed, clip=sample.clip or sample.threshold > 0.0,
        data=config.data.name, num_timesteps=num_timesteps, weights_sha256=model.fingerprint,
        prng_impl=sample.prng_impl, sampler=sample.sampler, steps=steps, eta=float(sample.eta),
        spacing="" if sample.spacing in usual else sample.spacing, threshold=float(sample.threshold),
        timesteps_sha256=hashlib.sha256(chosen.encode()).hexdigest()[:16] if sample.timesteps else "",
        labels=labels_name(config), guidance=float(sample.guidance), guidance_interval=",".join(map(str, interval)),
        **_of_weaker(model.weaker),
    )  # fmt: skip


def _of_weaker(weaker: TrainedModel | None) -> dict[str, Any]:
    if weaker is None:
        return {}
    return dict(
        guidance_weights=weaker.short_weights, guidance_step=weaker.step, guidance_sha256=weaker.fingerprint
    )  # fmt: skip


def default_path(folder: Path, spec: SampleSpec, *, num_samples: int) -> Path:
    """Returns the path of samples in a work folder, named by all that they depend on."""
    return folder / workdir.SAMPLES / f"{spec.name}_{num_samples}.npz"


def title(model: TrainedModel, what: str, *, seed: int) -> str:
    """Returns the title of a picture: what it shows, and which model drew it."""
    run = model.workdir.resolve().name if model.workdir else model.experiment.config.data.name
    return f"{what}: {run}, step {model.step}, {model.short_weights} weights, seed {seed}"


def map_images(draw: Callable) -> Callable[..., np.ndarray]:
    """Maps `draw(shared, *arrays [B, ...]) -> images [B, ...] in [-1, 1]` over all devices; see `parallel.map_batches`.

    Returns:
        A function that every process calls alike. It returns the images as uint8, and raises FloatingPointError if one
        is not finite.
    """
    return _checked(parallel.map_batches(lambda *arguments: _to_check(draw(*arguments)), name="the sampler"))


def map_chain(chain_of: Callable[[Any], sampling.Chain], select: Callable[..., jax.Array]) -> Callable[..., np.ndarray]:
    """Maps the chain `chain_of(shared)` over all devices; see `parallel.map_chain`.

    Args:
        chain_of: `shared -> chain`.
        select: `(x_0, what was kept) -> images [B, ...] in [-1, 1]`.

    Returns:
        As `map_images` does, with the argument `report` of `parallel.map_chain`.
    """

    def checked_chain_of(shared: Any) -> sampling.Chain:
        chain = chain_of(shared)
        return chain._replace(read=lambda carried: _to_check(select(*chain.read(carried))))

    return _checked(parallel.map_chain(checked_chain_of, name="the sampler"))


def _to_check(drawn: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns images [B, ...] as uint8, and whether each is finite."""
    return images.to_uint8(drawn), jnp.isfinite(drawn).all(axis=tuple(range(1, drawn.ndim)))


def _checked(mapped: Callable) -> Callable[..., np.ndarray]:
    def run(*arguments: Any, **options: Any) -> np.ndarray:
        pixels, finite = mapped(*arguments, **options)
        if not finite.all():
            raise FloatingPointError(
                f"{np.sum(~finite)} of {len(finite)} images are not finite. The weights may be those of a run that "
                "diverged, or overflow in the dtype of model.dtype."
            )
        return pixels

    return run


@functools.lru_cache(maxsize=4)
def mapped_sample(experiment: Experiment) -> Callable[..., np.ndarray]:
    """Returns `(replicated params, *experiment.inputs) -> uint8 [B, H, W, C]`, by `map_chain` and compiled once."""
    return map_chain(experiment.chain, lambda x_0, _: x_0)


def lower_sample(experiment: Experiment, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """Lowers the steps of `mapped_sample` for devices of any machine that share `sample.batch_size` images."""
    indices = np.arange(experiment.config.sample.batch_size)
    inputs = jax.eval_shape(lambda: experiment.inputs(0, indices))
    return parallel.lower_chain(experiment.chain, experiment.abstract_params, *inputs, devices=devices)


def draw_in_memory(experiment: Experiment, params: Any, *, num_samples: int, batch_size: int, seed: int) -> np.ndarray:
    """Draws images 0 to N - 1 of the seed, uint8 [N, H, W, C]; every process calls it alike, and all have them.

    Raises:
        signals.Stopped: if a signal requested it.
    """
    sample = mapped_sample(experiment)
    batches = np.array_split(np.arange(num_samples), -(-num_samples // batch_size))
    return np.concatenate([sample(params, *experiment.inputs(seed, indices)) for indices in batches])


def draw(model: TrainedModel, path: Path, *, num_samples: int, batch_size: int, seed: int) -> None:
    """Draws images 0 to N - 1 of the seed, and a grid of the first, unless they are there; continues where it stopped.

    Every process calls it alike; process 0 alone touches files.

    Raises:
        ValueError: if what is there, finished or not, was begun with other settings, is damaged, or is being drawn.
        OSError: if the disk has no room for them.
        signals.Stopped: if a signal requested it.
    """
    shape = (num_samples, *model.experiment.image_shape)
    settings = sample_spec(model, seed=seed).settings()
    if parallel.agree(lambda: _are_there(path, settings | {"shape": list(shape)})):
        print(f"These samples are there already: {path}")
        return
    samples = ResumableArray(path, settings=settings, shape=shape, dtype=np.uint8, or_unsigned=model.owns(path))
    params, sample = parallel.replicate(model.sampling_params), mapped_sample(model.experiment)
    samples.fill(
        lambda indices: sample(params, *model.experiment.inputs(seed, indices), report=samples.report),
        batch_size=batch_size,
    )
    parallel.agree(lambda: _publish(samples, path, title=title(model, "Samples", seed=seed)))
    print(f"Images: {path}\nGrid of the first {min(_GRID_IMAGES, num_samples)}: {path.with_suffix('.png')}")


def _are_there(path: Path, settings: dict[str, Any]) -> bool:
    """Tells whether a file of samples is there; of one that does not say what it holds its name must do.

    Raises:
        ValueError: if it is damaged, or says that it holds others.
    """
    if not path.is_file():
        return False
    theirs = settings
    with (
        foreign_files.reading(path, "is damaged: delete it, or choose another path"),
        zipfile.ZipFile(path) as archive,
    ):
        if archive.comment.startswith(_SIGNATURE):
            theirs = dict(json.loads(archive.comment.removeprefix(_SIGNATURE)))
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is not as it was written")
    if other := [name for name in {**settings, **theirs} if theirs.get(name) != settings.get(name)]:
        there, asked = (", ".join(f"{name} {values.get(name)}" for name in other) for values in (theirs, settings))
        raise ValueError(f"{path} holds other samples, of {there}, not {asked}: choose another path, or delete it.")
    return True


def _publish(samples: ResumableArray, path: Path, *, title: str) -> None:
    """Writes the .npz and the grid of a whole set, and removes what it was filled in."""
    images.save_png(path.with_suffix(".png"), images.labelled_grid(samples.array[:_GRID_IMAGES], title=title))
    with files.atomically(path) as unfinished, zipfile.ZipFile(unfinished, "w") as archive:
        archive.write(samples.file, "arr_0.npy")  # as np.savez writes it, but never in memory
        archive.comment = _SIGNATURE + json.dumps(samples.settings).encode()
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
