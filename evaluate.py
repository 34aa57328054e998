"""Measures a trained model, given its work folder, or any images: the numbers of Ho et al. 2020, Tables 1 to 4.

    python evaluate.py --workdir=runs/cifar10 --metrics=fid,is,kid,pr,bpd --num_samples=50000
    python evaluate.py --samples=mine.npz --reference=cifar10 --metrics=fid

Metrics of samples, drawn as sample.py draws them, or given; with the features of Inception-v3, or of a classifier of
the data set's own labels, which needs no download and whose numbers compare with nothing else:

    fid  fd_classifier     Frechet distance to the reference
    is   is_classifier     Inception score
    kid  kd_classifier     kernel distance to the reference
    pr   pr_classifier     precision and recall
    progressive, progressive_classifier     distance and score of the predicted x_0 by reverse steps (Figure 10)

Metrics of the model on images of its data set:

    bpd        the bound on the negative log-likelihood in bits/dim, at every timestep
    bpd_fast   an unbiased estimate of it from a few timesteps an image
    rd         rate-distortion, of the same pass as bpd (Table 4, Figure 5)

Scores go to WORKDIR/tables/metrics.json with all that they depend on, tables beside it. Run again, it continues where
it stopped, and what was measured before is read.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import flags

from configs import cifar10
from ddpm_jax import parallel
from ddpm_jax.cli import app
from ddpm_jax.evaluation import bound, image_sets, progressive, quality, record
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.record import Score
from ddpm_jax.metrics import inception
from ddpm_jax.metrics.features import Extractor
from ddpm_jax.paper import published, track
from ddpm_jax.runs import workdir
from ddpm_jax.runtime import cache, compilation_cache

_PAPER_SAMPLES = 50_000
_PROGRESSIVE = ("progressive", "progressive_classifier")

_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a run of train.py.")
_METRICS = flags.DEFINE_list("metrics", ["bpd"], "What to measure; see above.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Images at a time. Default: sample.py's.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of samples and noise, and of the choice of --num_images.", lower_bound=0)
_STEP = flags.DEFINE_integer("step", None, "Training step of the checkpoint. Default: the newest.")
_EMA = flags.DEFINE_bool("ema", None, "Use the averaged weights. Default: the config's.")
_OUT = flags.DEFINE_string("out", None, "The folder for tables. Default: WORKDIR/tables; of --samples alone, none.")
# Of samples.
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, f"To be drawn. Default: {_PAPER_SAMPLES}.", lower_bound=2)
_NUM_SEEDS = flags.DEFINE_integer(
    "num_seeds", 1, "Draw and score them anew with this many seeds, --seed and on, and say how far they spread.",
    lower_bound=1,
)  # fmt: skip
_SAMPLES = flags.DEFINE_string(
    "samples", None, "Images to score in place of drawn ones: an .npz, a folder, a tar, or DATA_SET[:SPLIT]."
)
_REFERENCE = flags.DEFINE_string(
    "reference", None, "What to compare with: an .npz of images or of statistics (mu, sigma), a folder, a tar, or "
    "DATA_SET[:SPLIT]. Default: what the model was trained on.",
)  # fmt: skip
_INCEPTION = flags.DEFINE_string("inception_weights", None, "A file to take in place of the published one.")
# Of images of the data set.
_SPLIT = flags.DEFINE_string("split", "test", "Of the data set, for bpd, bpd_fast and rd.")
_NUM_IMAGES = flags.DEFINE_integer("num_images", None, "How many, at random. Default: all.", lower_bound=2)
_NUM_TIMESTEPS = flags.DEFINE_integer(
    "num_timesteps", None, f"Of bpd_fast, an image. Default: {bound.FAST_TIMESTEPS}.", lower_bound=1
)
app.define_flags()


def chosen(metrics: tuple[str, ...]) -> list[str]:
    """Those of `--metrics` that are among these, in their order."""
    return [metric for metric in _METRICS.value if metric in metrics]


def check_flags() -> None:
    """Refuses flags that do not fit each other.

    Raises:
        ValueError: naming them.
    """
    known = (*quality.INCEPTION, *quality.CLASSIFIER, *_PROGRESSIVE, *BOUND)
    if unknown := [metric for metric in _METRICS.value if metric not in known]:
        raise ValueError(f"Unknown metric {unknown[0]!r} in --metrics; choose from {', '.join(known)}.")
    if _WORKDIR.value is None:
        if needing := chosen((*_PROGRESSIVE, *BOUND)):
            raise ValueError(f"--metrics={','.join(needing)} measures a model: give its --workdir.")
        if _SAMPLES.value is None:
            raise ValueError("Give a --workdir to draw samples from, or --samples.")
        if _REFERENCE.value is None and set(_METRICS.value) != {"is"}:
            raise ValueError("--samples without a --workdir need a --reference to be compared with.")


def batch_size(loaded: workdir.Loaded | None) -> int:
    """Images at a time."""
    return _BATCH_SIZE.value or (loaded.experiment.config.sample.batch_size if loaded else 64)


def tables() -> Path | None:
    """The folder for results; None if there is none."""
    if _OUT.value or _WORKDIR.value:
        return Path(_OUT.value or Path(_WORKDIR.value) / workdir.TABLES)
    return None


def keep(scores: list[Score], settings: dict) -> None:
    """Writes scores to metrics.json."""
    if folder := tables():
        record.write(folder / record.FILE, scores, settings=settings)


def samples_to_score(loaded: workdir.Loaded | None, seed: int) -> ImageSet:
    """Those of `--samples`, or drawn from the model."""
    if _SAMPLES.value:
        shape = loaded and loaded.experiment.image_shape
        return image_sets.open_set(_SAMPLES.value, image_shape=shape, **made_where(loaded, _SAMPLES.value))
    count = _NUM_SAMPLES.value or _PAPER_SAMPLES
    size = batch_size(loaded)
    return image_sets.drawn(loaded, Path(_WORKDIR.value), num_samples=count, batch_size=size, seed=seed)


def made_where(loaded: workdir.Loaded | None, name: str) -> dict:
    """Where the data set of this name lies, if it is the model's."""
    settings = loaded and loaded.experiment.config.data
    if settings and settings.name == name.partition(":")[0]:
        return dict(data_dir=settings.data_dir, memory_limit_gib=settings.memory_limit_gib)
    return {}


def feature_space(loaded: workdir.Loaded | None, kind: str) -> Extractor:
    """Inception, or the classifier of the data set: the model's, or else the reference's."""
    if kind == "inception":
        return inception.extractor(Path(_INCEPTION.value) if _INCEPTION.value else None)
    if loaded:
        return quality.classifier_extractor(*image_sets.training_set(loaded.experiment))
    name = _REFERENCE.value.partition(":")[0]
    return quality.classifier_extractor(*image_sets.open_source(name, image_shape=None))


def reference(loaded: workdir.Loaded | None, extractor: Extractor, shape: tuple[int, int, int]) -> quality.Reference:
    """Features of `--reference`, or of what the model was trained on."""
    if _REFERENCE.value is None:
        images = image_sets.of_source(*image_sets.training_set(loaded.experiment))
    elif _REFERENCE.value.endswith(".npz") and quality.holds_statistics(Path(_REFERENCE.value)):
        return quality.reference_from(Path(_REFERENCE.value))
    else:
        where = made_where(loaded, _REFERENCE.value)
        images = image_sets.open_set(_REFERENCE.value, image_shape=shape, **where)
    return quality.reference_of(extractor, images, batch_size=batch_size(loaded))


def score_samples(loaded: workdir.Loaded | None, metrics: list[str], kind: str) -> None:
    """Prints and keeps the scores of samples in one feature space."""
    extractor = feature_space(loaded, kind)
    target, seeds = None, range(_SEED.value, _SEED.value + (1 if _SAMPLES.value else _NUM_SEEDS.value))
    found: dict[str, list[Score]] = {}
    for seed in seeds:
        samples = samples_to_score(loaded, seed)
        if target is None and any(metric not in ("is", "is_classifier") for metric in metrics):
            target = reference(loaded, extractor, samples.shape[1:])
        for score in measured(loaded, metrics, extractor, samples, target):
            found.setdefault(score.name, []).append(score)
    print(f"{samples.about['images']}, {len(samples)} images; features of {extractor.name} ({extractor.fingerprint})")
    if target:
        count = target.about["count"]
        print(
            f"reference {target.about['name']}, {count or 'unknown number of'} images ({target.about['fingerprint']})"
        )
    for name, scores in found.items():
        for seed, score in zip(seeds, scores, strict=True):
            print(f"  {name:<24} {score}" + (f"   seed {seed}" if len(seeds) > 1 else ""))
        if len(seeds) > 1:
            values = np.array([score.value for score in scores])
            print(f"  {name:<24} {values.mean():.6g} ± {values.std(ddof=1):.2g} (deviation of {len(seeds)} seeds)")


def measured(
    loaded: workdir.Loaded | None, metrics: list[str], extractor: Extractor, samples: ImageSet,
    target: quality.Reference | None,
) -> list[Score]:  # fmt: skip
    """The scores of one set of samples, those that were measured before from metrics.json."""
    settings, folder = quality.settings_of(extractor, samples.about, target), tables()
    before = record.find(folder / record.FILE, settings=settings) if folder else []
    missing = [metric for metric in metrics if metric not in {score.metric for score in before}]
    fresh = []
    if missing:
        name = f"features_{samples.about['sha256']}_{extractor.fingerprint}.rows"
        path = (folder or cache.folder() / "features") / name
        rows = quality.features(extractor, samples, path, batch_size=batch_size(loaded))
        fresh = quality.measure(missing, extractor, samples, target, rows.array)
        keep(fresh, settings)
        rows.remove()
    return [score for score in before + fresh if score.metric in metrics]


def score_predictions(loaded: workdir.Loaded, metric: str) -> None:
    """Figure 10."""
    extractor = feature_space(loaded, "classifier" if metric.endswith("classifier") else "inception")
    rows, picture = progressive.table(
        loaded, tables(), extractor, reference(loaded, extractor, loaded.experiment.image_shape),
        num_samples=_NUM_SAMPLES.value or _PAPER_SAMPLES, batch_size=batch_size(loaded), seed=_SEED.value,
    )  # fmt: skip
    print("Predicted x_0 (Figure 10)\n  reverse steps     distance     Inception score")
    for row in rows:
        score = f"{row['inception_score']:.4g} ± {row['deviation']:.2g}"
        print(f"  {row['reverse_steps']:<14} {row['distance']:11.6g}     {score}")
    print(f"Figure 10: {picture}")


def bpd(task: bound.Task) -> None:
    """Table 1's NLL, and the sums that it consists of."""
    sums = bound.bound(task)["bits_per_dim"]
    print("Bound on the negative log-likelihood   bits/dim")
    for name, value in sums.items():
        print(f"  {name:<24} {value['mean']:14.7f} ± {value['standard_error']:.7f}")
    total = sums["total"]
    keep([Score("bpd", "bits/dim", total["mean"], total["standard_error"], "standard error")], task.settings)


def rate_distortion(task: bound.Task) -> None:
    """Table 4 and Figure 5."""
    found = bound.bound(task)
    print("Progressive coding (Table 4; the paper's are of CIFAR-10)")
    print("  reverse steps     rate, bits/dim              paper     RMSE, 0-255          paper")
    for ours, theirs in zip(found["rate_distortion"], published.TABLE_4, strict=True):
        rate = f"{ours['rate_bpd']:.5f} ± {ours['rate_standard_error']:.5f}"
        rmse = f"{ours['rmse']:.3f} ± {ours['rmse_standard_error']:.3f}"
        print(f"  {ours['reverse_steps']:<17} {rate:<25} {theirs.rate_bpd:8.5f}     {rmse:<18} {theirs.rmse:7.3f}")
    sums, last = found["bits_per_dim"], found["rate_distortion"][0]
    print(
        f"  rate {sums['rate L_1 + ... + L_T']['mean']:.2f} + distortion {sums['L_0']['mean']:.2f} bits/dim, RMSE "
        f"{last['rmse']:.2f} (paper: {published.RATE_BPD} + {published.DISTORTION_BPD}, {published.DISTORTION_RMSE})"
    )
    print(f"Figure 5: {bound.draw(task, found)}")


def bpd_fast(task: bound.Task) -> None:
    """The total of `bpd`, estimated."""
    found = bound.estimate(task, num_timesteps=_NUM_TIMESTEPS.value)
    total, count = found["bits_per_dim"]["total"], found["timesteps_per_image"]
    print(f"Bound, estimated from {count} timesteps an image   bits/dim")
    print(f"  {'total':<24} {total['mean']:14.7f} ± {total['standard_error']:.7f}")
    score = Score("bpd_fast", "bits/dim, estimated", total["mean"], total["standard_error"], "standard error")
    keep([score], task.settings | {"timesteps_per_image": count})


BOUND: dict[str, Callable[[bound.Task], None]] = {"bpd": bpd, "bpd_fast": bpd_fast, "rd": rate_distortion}


def report_track(loaded: workdir.Loaded) -> None:
    """Whether a run of the paper's CIFAR-10 model is where it should be."""
    config, paper_s = loaded.experiment.config, cifar10.get_config()
    same = all(config[section] == paper_s[section] for section in ("diffusion", "optim"))
    model = {name: value for name, value in config.model.items() if name not in ("dtype", "remat")}
    same = same and all(paper_s.model[name] == value for name, value in model.items())
    same = same and config.train.batch_size == paper_s.train.batch_size
    if same and loaded.experiment.image_shape == (32, 32, 3) and "cifar10" in config.data.name + config.data.data_dir:
        loss = workdir.recent_loss(Path(_WORKDIR.value), loaded.step)
        fids = [
            entry["value"] for entry in record.read(tables() / record.FILE)
            if entry["name"] == "FID" and entry["settings"]["samples"].get("step") == loaded.step
            and entry["settings"]["samples"]["weights"] == "ema"
        ]  # fmt: skip
        print(track.verdict(step=loaded.step, loss=loss, fid=fids[-1] if fids else None))


def evaluate() -> None:
    """Does what the flags ask for."""
    check_flags()
    loaded = workdir.load(_WORKDIR.value, step=_STEP.value, ema=_EMA.value) if _WORKDIR.value else None
    if loaded:
        print(f"Step {loaded.step}, {loaded.weights} weights; {parallel.describe()}.")
    if metrics := chosen(tuple(BOUND)):
        task = bound.make_task(
            tables(), loaded, split=_SPLIT.value, num_images=_NUM_IMAGES.value, batch_size=batch_size(loaded),
            seed=_SEED.value,
        )  # fmt: skip
        print(", ".join(f"{name} {value}" for name, value in task.settings.items()))
        for metric in metrics:
            BOUND[metric](task)
    for kind, names in (("inception", quality.INCEPTION), ("classifier", tuple(quality.CLASSIFIER))):
        if metrics := chosen(names):
            score_samples(loaded, metrics, kind)
    for metric in chosen(_PROGRESSIVE):
        score_predictions(loaded, metric)
    if loaded:
        report_track(loaded)


def main() -> int:
    """Measures on the devices of all processes."""
    compilation_cache.enable()
    parallel.on_primary(evaluate)
    return 0


if __name__ == "__main__":
    app.run(main)
