"""Draws what one model with classes can do, as pictures in WORKDIR/showcase/. `make showcase` trains it first.

    python examples/emoji/showcase.py --workdir=runs/emoji [--steps=250]

    classes        a row for each class
    guidance       the same seeds, guided from 0 to 4
    steps          the same seeds in 1000, 100, 50, 20, 10 and 5 steps of DDIM
    inpainting     the right half of images drawn anew by RePaint
    inversion      images encoded by DDIM, and decoded again
    interpolation  from one image to another by way of their latents
    neighbours     samples beside the training images nearest to them

Given images are of the split 'test'. What takes long is kept in WORKDIR/samples/: run again, it continues.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from ddpm_jax import images, parallel, samplers, sampling
from ddpm_jax.cli import app
from ddpm_jax.cli import sample as sample_command
from ddpm_jax.editing import edits, masks
from ddpm_jax.paper import figures, generation
from ddpm_jax.runs import image_tables, sample_files
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.runtime import compilation_cache, files

_SEED, _GUIDANCE = 0, 0.5
_SCALES = (0.0, 0.5, 1.0, 2.0, 4.0)  # of guidance
_FEW_STEPS = (1.0, 0.1, 0.05, 0.02, 0.01, 0.005)  # parts of T, as are the next two
_INPAINTING_STEPS, _LATENT_STEPS = 0.1, 0.1
_INVERSION_STEPS = (0.01, 0.05, 0.25)
_OF_A_CLASS, _OF_A_SEED, _VARIANTS = 12, 2, 6  # images: of a class; of a class in rows of the same seeds; inpainted
_WEIGHTS = tuple(np.arange(9) / 8)  # of interpolation


def draw_all(model: TrainedModel, folder: Path, *, steps: int = 0) -> None:
    """Draws all pictures.

    Args:
        model: with classes.
        folder: its work folder.
        steps: of ancestral sampling; 0: all.

    Raises:
        ValueError: if the model has no classes, or its data set no split 'test' with two images of each.
    """
    if model.experiment.condition_fn is None:
        raise ValueError("The showcase is of a model with classes, and model.num_classes is 0.")
    model = model.sampling_with(
        sampler="ancestral", steps=steps, labels="all", guidance=_GUIDANCE, guidance_weights="", guidance_step=0
    )
    names, given = held_out(model.experiment)
    draw_samples(model, folder, names)
    draw_inpainting(model, folder, names, given[:, 0])
    draw_latents(model, folder, names, given)


def held_out(experiment: Experiment) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of the classes, and two held-out images of each, uint8 [classes, 2, H, W, C]."""
    source = experiment.load_data("test")
    order = np.random.default_rng(_SEED).permutation(len(source))
    pixels, labels = source.read(order)
    pairs = [pixels[labels == c][:2] for c in range(len(source.class_names))]
    if rare := [name for name, pair in zip(source.class_names, pairs, strict=True) if len(pair) < 2]:
        raise ValueError(
            f"The split 'test' has fewer than two images of {', '.join(rare)}: hold out more of the images."
        )
    return source.class_names, np.stack(pairs)


def draw_samples(model: TrainedModel, folder: Path, names: tuple[str, ...]) -> None:
    """Draws samples: by class, beside their nearest neighbours, by guidance, and by number of steps."""
    n, count, steps = len(names), _OF_A_CLASS * len(names), model.experiment.sampler().num_steps
    by_class = _samples(model, folder, count).reshape(_OF_A_CLASS, n, *model.experiment.image_shape).swapaxes(0, 1)
    how = f"guidance {_GUIDANCE:g}, {steps} steps"
    _save(model, folder, "classes", by_class, f"A row for each class, {how}", left=names)

    out = folder / "showcase" / "neighbours.png"
    figures.draw(model, folder, "neighbours", out=out, num_images=count, batch_size=count, seed=_SEED)

    by_scale = [_samples(model.sampling_with(guidance=scale), folder, _OF_A_SEED * n) for scale in _SCALES]
    _save(
        model, folder, "guidance", _with_classes_together(by_scale, n), f"The same seeds by guidance, {steps} steps",
        corner="guidance", left=[f"{scale:g}" for scale in _SCALES], above=np.repeat(names, _OF_A_SEED).tolist(),
    )  # fmt: skip

    few = generation.fractions_of(model.experiment.process.num_timesteps, _FEW_STEPS)
    ddim = (model.sampling_with(sampler="ddim", steps=k, spacing="trailing") for k in few)
    by_steps = [_samples(each, folder, _OF_A_SEED * n) for each in ddim]
    _save(
        model, folder, "steps", _with_classes_together(by_steps, n),
        f"The same seeds by steps of DDIM, guidance {_GUIDANCE:g}",
        corner="steps", left=[str(k) for k in few], above=np.repeat(names, _OF_A_SEED).tolist(),
    )  # fmt: skip


def draw_inpainting(model: TrainedModel, folder: Path, names: tuple[str, ...], given: np.ndarray) -> None:
    """Draws variants of held-out images, of which one half is known."""
    n, height, width, _ = given.shape
    (steps,) = generation.fractions_of(model.experiment.process.num_timesteps, [_INPAINTING_STEPS])
    labels = ",".join(map(str, np.arange(n).repeat(_VARIANTS)))  # the images of a row are of its class
    of_rows = model.sampling_with(steps=steps, labels=labels)
    anew = masks.drawn_anew("right", height=height, width=width)
    table = _kept(
        of_rows, folder, "inpainted",
        lambda params: edits.inpainted(
            of_rows.experiment, params, given=given, anew=anew, jump_length=10, num_resamples=5, variants=_VARIANTS,
            seed=_SEED, batch_size=n * _VARIANTS,
        ),
    )  # fmt: skip
    _save(
        model, folder, "inpainting", table, f"Right halves of held-out images drawn anew, guidance {_GUIDANCE:g}",
        left=names, above=["image", "known", *(f"drawn {j + 1}" for j in range(_VARIANTS))],
    )  # fmt: skip


def draw_latents(model: TrainedModel, folder: Path, names: tuple[str, ...], given: np.ndarray) -> None:
    """Draws pairs of held-out images that go through their latents: each alone, and what lies between."""
    num_timesteps = model.experiment.process.num_timesteps

    def decoded(name: str, given: np.ndarray, weights: tuple[float, ...], steps: int) -> np.ndarray:
        draw = functools.partial(through_latents, model.experiment, given=given, weights=weights, steps=steps)
        return _kept(model, folder, f"{name}{steps}", draw)

    few = generation.fractions_of(num_timesteps, _INVERSION_STEPS)[::-1]
    first = given[:, :1]
    tables = [decoded("inverted", first, (0.0,), steps) for steps in few]  # latent, decoded
    table = np.concatenate([first, tables[-1][:, :1], *(each[:, 1:] for each in tables)], axis=1)
    rmse = np.sqrt(np.square(table.astype(float) - first).mean(axis=(2, 3, 4)))
    _save(
        model, folder, "inversion", table, "Held-out images encoded by DDIM and decoded, RMSE below (of 255)",
        left=names, above=["image", "latent", *(f"{steps} steps" for steps in few)],
        below=[["", "", *(f"{value:.1f}" for value in row[2:])] for row in rmse],
    )  # fmt: skip

    (steps,) = generation.fractions_of(num_timesteps, [_LATENT_STEPS])
    between = decoded("between", given, _WEIGHTS, steps)[:, 2:]
    table = np.concatenate([first, between, given[:, 1:]], axis=1)
    _save(
        model, folder, "interpolation", table, f"Between two held-out images through latents, {steps} steps of DDIM",
        left=names, corner="weight", above=["image", *(f"{weight:g}" for weight in _WEIGHTS), "image"],
    )  # fmt: skip


def through_latents(
    experiment: Experiment, params: Any, *, given: np.ndarray, weights: tuple[float, ...], steps: int
) -> np.ndarray:
    """Encodes images by DDIM, interpolates between the latents and decodes (Song, Meng, Ermon 2020, Section 5.3).

    Told the class, but not guided. Interpolated on the sphere: what lies between two latents is as long as they are.

    Args:
        experiment: the process and the network.
        params: of the network, replicated.
        given: [classes, 1 or 2, H, W, C] uint8; one is encoded and decoded.
        weights: [W] of the second latent.
        steps: of encoding and of decoding.

    Returns:
        uint8 [classes, 1 or 2 + W, H, W, C]: the latents, clipped to be shown, and what is decoded.
    """
    process, timesteps = experiment.process, samplers.spaced(experiment.process, steps, "trailing")

    def flat(x: jax.Array) -> jax.Array:  # [B, K, H, W, C] -> [B * K, H, W, C]
        return x.reshape(-1, *x.shape[2:])

    def run(params: Any, given: jax.Array, labels: jax.Array) -> jax.Array:
        denoise_fn = experiment.denoise_fn(params, labels.repeat(given.shape[1]))
        x_0 = flat(images.from_uint8(given))
        latents = sampling.encode(process, denoise_fn, x_0=x_0, timesteps=timesteps).reshape(given.shape)
        x_t = flat(on_sphere(latents[:, 0], latents[:, -1], jnp.asarray(weights)))
        denoise_fn = experiment.denoise_fn(params, labels.repeat(len(weights)))
        decoded = sampling.decode(
            process, denoise_fn, x_t=x_t, num_steps=steps, keys=jnp.zeros(len(x_t)), clip=False,
            sampler=samplers.ddim(process, timesteps), noise_fn=lambda keys, index, shape: jnp.zeros_like(x_t),
        )  # fmt: skip
        return jnp.concatenate([latents, decoded.reshape(len(given), -1, *given.shape[2:])], axis=1)

    with image_tables.progress_bar(len(given)) as bar:
        arrays = given, np.arange(len(given), dtype=np.int32)
        return image_tables.in_batches(sample_files.map_images(run), params, *arrays, batch_size=len(given), bar=bar)


def on_sphere(a: jax.Array, b: jax.Array, weights: jax.Array) -> jax.Array:
    """Interpolates between latents [B, H, W, C] with weights [K] of b, along the sphere: [B, K, H, W, C]."""
    dot, norms = (a * b).sum((1, 2, 3)), [jnp.linalg.norm(x.reshape(len(x), -1), axis=1) for x in (a, b)]
    angle = jnp.arccos(jnp.clip(dot / (norms[0] * norms[1]), -1.0, 1.0))[:, None]  # [B, 1]
    of_a, of_b = (
        jnp.where(angle > 1e-3, jnp.sin(x * angle) / jnp.sin(angle), x) for x in (1.0 - weights[None], weights[None])
    )
    return jnp.einsum("bk,bhwc->bkhwc", of_a, a) + jnp.einsum("bk,bhwc->bkhwc", of_b, b)


def _samples(model: TrainedModel, folder: Path, count: int) -> np.ndarray:
    """Draws samples into the work folder where they are not there yet: uint8 [N, H, W, C], the classes in turn."""
    path = sample_files.default_path(folder, sample_files.sample_spec(model, seed=_SEED), num_samples=count)
    sample_files.draw(model, path, num_samples=count, batch_size=count, seed=_SEED)
    return sample_files.read(path)


def _with_classes_together(rows: list[np.ndarray], num_classes: int) -> np.ndarray:
    """Sorts the columns of rows [N, H, W, C], of which the classes come in turn, by class: [rows, N, H, W, C]."""
    table = np.stack(rows)
    return table[:, np.arange(table.shape[1]).reshape(-1, num_classes).T.ravel()]


def _kept(model: TrainedModel, folder: Path, name: str, draw: Callable[[Any], np.ndarray]) -> np.ndarray:
    """Returns `draw(replicated params)`, a table of images, or what it returned in an earlier run."""
    samples = sample_files.default_path(folder, sample_files.sample_spec(model, seed=_SEED), num_samples=0)
    path = samples.with_name(f"{name}_{model.fingerprint}_{samples.stem}.npz")
    if not path.is_file():
        table = draw(parallel.replicate(model.params))
        with files.atomically(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, arr_0=table)
    with np.load(path) as arrays:
        return arrays["arr_0"]


def _save(model: TrainedModel, folder: Path, name: str, table: np.ndarray, what: str, **labels: Any) -> None:
    path = folder / "showcase" / f"{name}.png"
    image_tables.save(path, table, title=sample_files.title(model, what, seed=_SEED), **labels)


def _define_flags() -> None:
    sample_command.define_weights_flags()
    flags.DEFINE_integer("steps", 0, "How many of the timesteps ancestral sampling takes; 0: all.", lower_bound=0)
    flags.mark_flag_as_required("workdir")


def _draw(values: flags.FlagValues) -> int:
    compilation_cache.enable()
    draw_all(sample_command.load_weights(values), Path(values.workdir), steps=values.steps)
    return 0


if __name__ == "__main__":
    app.run(_define_flags, _draw, doc=__doc__)
