"""Draws images from a trained model (Ho et al. 2020, Algorithm 2), given its work folder alone.

    python sample.py --workdir=runs/cifar10 --num_samples=50000 --batch_size=256 --seed=0

Writes WORKDIR/samples/<name>.npz (uint8 [N, H, W, C] as `arr_0`, the layout that published evaluators read) and a
grid of the first images. Image i depends on the seed and i alone. Run again, it continues where it stopped.
"""

import sys
import zipfile
from pathlib import Path

import numpy as np
from absl import app, flags, logging
from tqdm import tqdm

from ddpm_jax import images, parallel, sampling, workdir
from ddpm_jax.signals import StopRequest

_GRID_IMAGES = 100

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run of train.py.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "How many images. Default: the config's.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time. Default: the config's.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", None, "Another seed, other images. Default: the config's.")
_STEP = flags.DEFINE_integer("step", None, "Training step of the checkpoint. Default: the newest.")
_EMA = flags.DEFINE_bool("ema", None, "Use the averaged weights. Default: the config's.")
_OUT = flags.DEFINE_string("out", None, "Path of the .npz. Default: one in WORKDIR/samples, named by the settings.")
flags.mark_flag_as_required("workdir")


def draw_all(loaded: workdir.Loaded, path: Path, *, num_samples: int, batch_size: int, seed: int) -> int:
    """Draws what is not there yet and writes it; returns the exit code.

    Until all are drawn, they lie in `<path>.partial.npy` and their number in `<path>.partial.txt`.
    """
    array_path, count_path = path.with_suffix(".partial.npy"), path.with_suffix(".partial.txt")
    shape = (num_samples, *loaded.experiment.image_shape)
    done = int(count_path.read_text()) if count_path.is_file() and array_path.is_file() else 0
    drawn = np.lib.format.open_memmap(array_path, mode="r+" if done else "w+", dtype=np.uint8, shape=shape)
    if done:
        print(f"Continuing after {done} of {num_samples} images.")
    draw = parallel.pmap_samples(lambda params, keys: images.to_uint8(loaded.experiment.sample(params, keys)))
    params = parallel.replicate(loaded.params)
    with StopRequest() as stop, tqdm(total=num_samples, initial=done, unit="image", smoothing=0.0) as bar:
        while done < num_samples and not stop.received:
            indices = np.arange(done, done + batch_size)  # the last batch is drawn whole: no second compilation
            batch = np.asarray(draw(params, sampling.image_keys(seed, indices)))[: num_samples - done]
            drawn[done : done + len(batch)] = batch
            drawn.flush()
            done += len(batch)
            workdir.write_atomically(count_path, str(done))
            bar.update(len(batch))
    if stop.received:
        print(f"Stopped after {done} of {num_samples} images; the same command continues.")
        return stop.exit_code
    images.save_png(path.with_suffix(".png"), images.grid(drawn[:_GRID_IMAGES]))
    with zipfile.ZipFile(path.with_suffix(".unfinished"), "w") as archive:  # as np.savez writes it, but never in memory
        archive.write(array_path, "arr_0.npy")
    path.with_suffix(".unfinished").replace(path)
    array_path.unlink()
    count_path.unlink()
    return 0


def main(argv: list[str]) -> int:
    """Runs the command and says what went wrong in a sentence."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown argument {argv[1]!r}.")
    logging.set_verbosity(logging.WARNING)
    try:
        loaded = workdir.load(_WORKDIR.value, step=_STEP.value, ema=_EMA.value)
        settings = loaded.experiment.config.sample
        num_samples = _NUM_SAMPLES.value or settings.num_samples
        batch_size = min(_BATCH_SIZE.value or settings.batch_size, num_samples)
        seed = settings.seed if _SEED.value is None else _SEED.value
        weights = "ema" if (settings.ema if _EMA.value is None else _EMA.value) else "raw"
        name = f"step{loaded.step}_{weights}_seed{seed}_{num_samples}.npz"
        path = Path(_OUT.value or Path(_WORKDIR.value) / workdir.SAMPLES / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"{num_samples} images, step {loaded.step}, {weights} weights, seed {seed}, {parallel.describe()}.")
        if path.is_file():
            print(f"They are there already: {path}")
            return 0
        code = draw_all(loaded, path, num_samples=num_samples, batch_size=batch_size, seed=seed)
    except (ValueError, OSError) as error:
        print(f"sample.py: {error}", file=sys.stderr)
        return 1
    if code == 0:
        print(f"Images: {path}\nGrid of the first {min(_GRID_IMAGES, num_samples)}: {path.with_suffix('.png')}")
    return code


if __name__ == "__main__":
    app.run(main)
