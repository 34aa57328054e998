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

from pathlib import Path

from absl import flags

from ddpm_jax import parallel
from ddpm_jax.cli import app
from ddpm_jax.paper import figures
from ddpm_jax.runs import sample_files, workdir
from ddpm_jax.runtime import compilation_cache

_MODE = flags.DEFINE_enum("mode", "samples", ["samples", *figures.MODES], "What to draw.")
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run of train.py.")
_NUM_SAMPLES = flags.DEFINE_integer(
    "num_samples", None, "How many images (interpolate: pairs). Default: the config's; of a figure 10.", lower_bound=1
)
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
app.define_flags()
flags.mark_flag_as_required("workdir")


def draw() -> None:
    """Does what the flags ask for."""
    loaded = workdir.load(_WORKDIR.value, step=_STEP.value, ema=_EMA.value)
    folder, out, config = Path(_WORKDIR.value), _OUT.value and Path(_OUT.value), loaded.experiment.config.sample
    print(f"Step {loaded.step}, {loaded.weights} weights, {parallel.describe()}.")
    if _MODE.value == "samples":
        count, seed = _NUM_SAMPLES.value or config.num_samples, config.seed if _SEED.value is None else _SEED.value
        path = out or sample_files.default_path(folder, loaded, num_samples=count, seed=seed)
        batch_size = min(_BATCH_SIZE.value or config.batch_size, count)
        sample_files.draw(loaded, path, num_samples=count, batch_size=batch_size, seed=seed)
    else:
        figures.draw(
            loaded, folder, _MODE.value, out=out, num_images=_NUM_SAMPLES.value, batch_size=_BATCH_SIZE.value,
            seed=_SEED.value, sources=_SOURCES.value, crop=_CROP.value,
        )  # fmt: skip


def main() -> int:
    """Draws on the devices of all processes."""
    compilation_cache.enable()
    parallel.on_primary(draw)
    return 0


if __name__ == "__main__":
    app.run(main)
