"""Draws images from a trained model (Ho et al. 2020, Algorithm 2, or faster), given its work folder alone.

    ddpm-sample --workdir=runs/cifar10 --num_samples=50000 --batch_size=256 --seed=0 [--mode=...]

Writes WORKDIR/samples/<name>.npz (uint8 [N, H, W, C] as `arr_0`, the layout that published evaluators read) and a
grid of the first images. Image i depends on the seed and i alone. Run again, it continues where it stopped.

    --sampler=ancestral                    Algorithm 2; with --steps=100, at some timesteps alone
    --sampler=ddim --steps=50 --eta=0      DDIM, which needs fewer; eta from 0 to 1 (--spacing=quadratic for CIFAR-10)
    --sampler=dpm_solver_2m --steps=15     DPM-Solver++ of order 2 or 3, multistep or singlestep (2m, 3m, 2s, 3s)
    --sampler=heun --steps=18              Heun's method in two calls a step; heun_stochastic adds noise on the way
    --sampler=probability_flow --steps=10  the probability-flow ODE by Runge and Kutta's method in four calls a step
    --timesteps=FILE --steps=10            the best timesteps for any of these, which ddpm-schedule found
    --sampler=langevin, predictor_corrector    annealed Langevin dynamics; ancestral steps with Langevin corrections

Of a model with classes, --labels=3 draws one class, --labels=all all in turn, and --guidance=1 makes the class plainer.

Other modes write WORKDIR/samples/<mode>_<name>.png, the paper's figures of what the model does:

    progressive     the x_0 predicted on the way, a row an image; and the same as an animation, .webp  (Figures 6, 14)
    shared_latents  images that share x_t, a row for each t of 1000, 750, 500, 250 (of T = 1000)       (Figure 7)
    interpolate     between two training images by 500 steps, a row a pair (Figure 8); and the first
                    pair by 1000, 875, ..., 0 steps, in ..._coarse_to_fine.png; told no class          (Figure 9)
    neighbours      samples and the training images nearest to them in pixel space, those first that are most like
                    copies, and the rate of copies; the samples are those of the default mode     (Figures 12, 15)

and edited images of the data set, a row an image:

    inpaint         the image, what is left of it, and six ways to draw the rest anew by RePaint; --mask says where
    image_to_image  the image, and six that resemble it, the less the larger --strength is, by SDEdit
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from ddpm_jax import editing, parallel, samplers
from ddpm_jax.cli import app
from ddpm_jax.editing import masks
from ddpm_jax.evaluation import schedules
from ddpm_jax.paper import figures
from ddpm_jax.runs import own, sample_files, trained_model
from ddpm_jax.runtime import compilation_cache


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _sample, doc=__doc__)


def define_weights_flags() -> None:
    """Defines the flags that choose a trained model."""
    flags.DEFINE_string("workdir", None, "The folder of a run of ddpm-train.")
    flags.DEFINE_integer("step", None, "Training step of the checkpoint. Default: the newest.")
    flags.DEFINE_string(
        "weights", None, "raw; ema, their average; another of optim.averages by its name; or posthoc_LENGTH, made of "
        "those of power_... that the checkpoints hold. Default: the config's.",
    )  # fmt: skip
    flags.DEFINE_string("own", None, "The file of the experiment, if it defines get_network or open_data; it is run.")
    flags.DEFINE_bool("ema", None, "The same as --weights=ema, or, as --noema, as --weights=raw.")


def define_model_flags() -> None:
    """Defines the flags that choose a trained model, and how samples are drawn from it."""
    define_weights_flags()
    flags.DEFINE_enum("sampler", None, [*samplers.SAMPLERS], "How samples are drawn. Default: the config's.")
    flags.DEFINE_integer(
        "steps", None, "How many of the timesteps the sampler takes; 0: all. The network is called once at each, by "
        "heun and predictor_corrector twice, by probability_flow four times, by langevin ten times. Default: the "
        "config's.", lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_enum(
        "spacing", None, ["", *samplers.SPACINGS], "Which timesteps. Default: the config's; '': the sampler's usual."
    )
    flags.DEFINE_string(
        "timesteps", None, "A file of ddpm-schedule's: take the best --steps timesteps, and for ancestral sampling the "
        "variances, that it found.",
    )  # fmt: skip
    flags.DEFINE_float("eta", None, "Of ddim, from 0, no noise, to 1. Default: the config's.", lower_bound=0.0)
    flags.DEFINE_float(
        "threshold", None, "Dynamic thresholding of the predicted x_0 at this quantile in place of clipping, such as "
        "0.995; 0: none. Default: the config's.", lower_bound=0.0,
    )  # fmt: skip

    flags.DEFINE_string(
        "labels", None, "The class of each sample, of a model with classes: a number or several, 0,1,2, which are "
        "repeated; all; or none, as if it had no classes. Default: the config's.",
    )  # fmt: skip
    flags.DEFINE_float(
        "guidance", None, "w in (1 + w) eps(x_t, class) - w eps(x_t), of a model with classes; 0: none. The scale of "
        "others is 1 + w. Default: the config's.", lower_bound=0.0,
    )  # fmt: skip
    flags.DEFINE_string(
        "guidance_weights", None, "raw or ema: guide by these weaker weights of the same run, and not by the "
        "network without its class; also of a model without classes. Default: the config's.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "guidance_step", None, "The training step of these weights. Default: the same as of the others.", lower_bound=0
    )
    flags.DEFINE_string(
        "guidance_interval", None, "FIRST,LAST: the timesteps of 0..T-1 that are guided. Default: the config's."
    )


def load_weights(values: flags.FlagValues, *, weights: str | None = None) -> trained_model.TrainedModel:
    """Loads the model that the flags choose, or other weights of it."""
    weights = weights or values.weights or (None if values.ema is None else "ema" if values.ema else "raw")
    given = own.from_file(values.own, trained_model.settings_of(values.workdir)) if values.own else None
    return trained_model.load(values.workdir, step=values.step, weights=weights, own=given)


def load(values: flags.FlagValues, *, weights: str | None = None) -> trained_model.TrainedModel:
    """Loads the model that the flags choose, or other weights of it, with the settings of samples that they change."""
    interval = values.guidance_interval
    if interval and not all(number.isdecimal() for number in interval.split(",")):
        raise ValueError(f"--guidance_interval={interval} must be FIRST,LAST: two timesteps.")
    names = (
        "sampler", "steps", "spacing", "eta", "threshold", "labels", "guidance", "guidance_weights", "guidance_step",
    )  # fmt: skip
    settings = {name: values[name].value for name in names}
    settings["guidance_interval"] = tuple(map(int, interval.split(","))) if interval else None
    changed = {name: value for name, value in settings.items() if value is not None}
    model = load_weights(values, weights=weights)
    if values.timesteps:
        changed |= _scheduled(values, changed.get("sampler", model.experiment.config.sample.sampler))
    return model.sampling_with(**changed) if changed else model


def _scheduled(values: flags.FlagValues, sampler: str) -> dict[str, Any]:
    """Reads the settings of samples that --timesteps stands for."""
    found = parallel.agree(lambda: schedules.read_schedule(Path(values.timesteps), steps=values.steps))
    timesteps, variances = map(tuple, found)
    return {
        "steps": 0, "spacing": values.spacing or "", "timesteps": timesteps,
        "variances": variances if sampler == "ancestral" else (),
    }  # fmt: skip


def _define_flags() -> None:
    define_model_flags()
    flags.DEFINE_enum("mode", "samples", ["samples", *figures.MODES, *editing.MODES], "What to draw.")
    flags.DEFINE_integer(
        "num_samples", None, "How many images (interpolate: pairs). Default: the config's; of a figure 10.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_integer("batch_size", None, "Images at a time. Default: the config's.", lower_bound=1)
    flags.DEFINE_integer("seed", None, "Another seed, other images. Default: the config's.", lower_bound=0)
    flags.DEFINE_list(
        "sources", None, "interpolate: the numbers of the training images, two a pair; of edited images, of those of "
        "--split. Default: drawn by the seed.",
    )  # fmt: skip
    flags.DEFINE_integer(
        "crop", 0, "neighbours: compare the square of this side at the centre (paper: 100 for CelebA-HQ). 0: all.",
        lower_bound=0,
    )  # fmt: skip
    _define_editing_flags()
    flags.DEFINE_string(
        "out", None, "Path of the .npz, or of the figure. Default: one in WORKDIR/samples, named by the settings."
    )
    flags.mark_flag_as_required("workdir")


def _define_editing_flags() -> None:
    flags.DEFINE_string("split", "", "Edited images: of the data set, such as test. Default: that of training.")
    flags.DEFINE_string(
        "mask", "center", f"inpaint: what is drawn anew, {', '.join(masks.MASKS)}, or the path of an image, where it "
        "is white.",
    )  # fmt: skip
    flags.DEFINE_integer("jump_length", 10, "inpaint: how many steps RePaint goes back at a time.", lower_bound=1)
    flags.DEFINE_integer("num_resamples", 10, "inpaint: how often it takes them; 1: no way back.", lower_bound=1)
    flags.DEFINE_float(
        "strength", 0.5, "image_to_image: the share of the steps that is taken.", lower_bound=0.0, upper_bound=1.0
    )


def _sample(values: flags.FlagValues) -> int:
    out = app.file_to_write(values.out, ".npz" if values.mode == "samples" else ".png")
    compilation_cache.enable()
    model = load(values)
    folder, settings = Path(values.workdir), model.experiment.config.sample
    print(f"Step {model.step}, {model.short_weights} weights, {parallel.describe()}.")
    if values.mode == "samples":
        count, seed = values.num_samples or settings.num_samples, settings.seed if values.seed is None else values.seed
        spec = sample_files.sample_spec(model, seed=seed)
        path = out or sample_files.default_path(folder, spec, num_samples=count)
        batch_size = min(values.batch_size or settings.batch_size, count)
        sample_files.draw(model, path, num_samples=count, batch_size=batch_size, seed=seed)
    elif values.mode in editing.MODES:
        edit = editing.Edit(**{field.name: values[field.name].value for field in dataclasses.fields(editing.Edit)})
        editing.draw(
            model, folder, edit, out=out, num_images=values.num_samples, batch_size=values.batch_size, seed=values.seed,
        )  # fmt: skip
    else:
        figures.draw(
            model, folder, values.mode, out=out, num_images=values.num_samples, batch_size=values.batch_size,
            seed=values.seed, sources=values.sources, crop=values.crop,
        )  # fmt: skip
    return 0
