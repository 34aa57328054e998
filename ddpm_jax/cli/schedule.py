"""Finds the timesteps with which a trained model needs the fewest, and the variances of its steps.

    ddpm-schedule --workdir=runs/cifar10 --steps=10,25,50,100
    ddpm-sample --workdir=runs/cifar10 --timesteps=runs/cifar10/tables/schedules_....json --steps=25 [--sampler=...]

For each number of steps, the timesteps are those with the best bound on the likelihood, found by dynamic programming
(Watson et al. 2021); any sampler takes them. The variances, of ancestral sampling alone, are the optimal ones (Bao et
al. 2022, Analytic-DPM). Both follow from how well the network predicts at each timestep, which is measured once, on
images that it was trained on, and continued if it was interrupted. Run by python -m ddpm_jax.cli.schedule, too.
"""

from pathlib import Path

from absl import flags

from ddpm_jax import parallel
from ddpm_jax.cli import app, sample
from ddpm_jax.evaluation import image_sets, schedules
from ddpm_jax.evaluation.selection import select_images
from ddpm_jax.runs import workdir
from ddpm_jax.runtime import compilation_cache, foreign_files


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _schedule, doc=__doc__)


def _define_flags() -> None:
    sample.define_weights_flags()
    flags.DEFINE_list("steps", ["10", "25", "50", "100"], "The numbers of timesteps.")
    flags.DEFINE_string("split", "", "Images of the data set to measure. Default: those of training.")
    flags.DEFINE_integer("num_images", 1000, "How many of them at most, at random.", lower_bound=2)
    flags.DEFINE_integer("batch_size", None, "Images at a time. Default: ddpm-sample's.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the noise, and of the choice of images.", lower_bound=0)
    flags.DEFINE_float(
        "last_levels", 1.0, "The last step with noise moves a pixel by at most so many of 256 levels on average.",
        lower_bound=0.0,
    )  # fmt: skip
    flags.mark_flag_as_required("workdir")


def _schedule(values: flags.FlagValues) -> int:
    if not all(text.isdecimal() for text in values.steps):
        raise ValueError(f"--steps={','.join(values.steps)} must be numbers of timesteps.")
    compilation_cache.enable()
    model = sample.load_weights(values)
    print(f"Step {model.step}, {model.short_weights} weights; {parallel.describe()}.")
    config = model.experiment.config
    split = values.split or config.data.split
    images = image_sets.share_split(model.experiment, split)
    selection = select_images(
        model, images, split=split, num_images=min(values.num_images, len(images)), seed=values.seed
    )
    file = schedules.measure_schedules(
        selection, Path(values.workdir) / workdir.TABLES, counts=[int(text) for text in values.steps],
        batch_size=values.batch_size or config.sample.batch_size, last_levels=values.last_levels,
    )  # fmt: skip
    table = parallel.agree(lambda: foreign_files.read_json(file, "is no table"))
    print("timesteps   bits/dim   of evenly spaced ones")
    for made in table["schedules"]:
        print(f"{made['steps']:>9} {made['bits_per_dim']:>10.4f} {made['bits_per_dim_of_linspace']:>23.4f}")
    print(f"Written to {file}: ddpm-sample takes it as --timesteps={file} --steps=...")
    return 0


if __name__ == "__main__":
    main()
