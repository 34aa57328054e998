"""Measures a trained model, or any images.

    ddpm-evaluate --workdir=runs/cifar10 --metrics=fid,is,bpd
    ddpm-evaluate --samples=mine.npz --reference=cifar10 --metrics=fid

Metrics of samples, drawn as ddpm-sample draws them, or given; with the features of Inception-v3, or of a classifier of
the data set's own labels, which needs no download and whose numbers compare with nothing else:

    fid  fd_classifier     Frechet distance to the reference
    fid_infinity  fd_infinity_classifier     the same, extrapolated to infinitely many samples
    is   is_classifier     Inception score
    kid  kd_classifier     kernel distance to the reference
    pr   pr_classifier     precision and recall
    label_accuracy         how often the classifier sees the class that was asked for, of a model with classes
    progressive, progressive_classifier     distance and score of the predicted x_0 by reverse steps (Figure 10)

Metrics of the model on images of its data set:

    bpd        the bound on the negative log-likelihood in bits/dim, at every timestep; of a model with classes, each
               image given its own
    bpd_fast   an unbiased estimate of it from a few timesteps an image
    bpd_ode    the negative log-likelihood in bits/dim under the probability-flow ODE, of the dequantized images
    rd         rate-distortion, of the same pass as bpd (Table 4, Figure 5)

Of a run with optim.averages=('power_0.05', 'power_0.1'), --lengths=0.05,0.07,0.1 scores averages of the weights of
these lengths, made from its checkpoints, and draws each score by the length: WORKDIR/tables/lengths_....png.

Scores go to WORKDIR/tables/metrics.json with all that they depend on, tables beside it. Run again, it continues where
it stopped, and what was measured before is read.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from ddpm_jax import parallel
from ddpm_jax.cli import app, sample
from ddpm_jax.evaluation import image_sets, progressive, quality, scoring
from ddpm_jax.evaluation.bits_per_dim import FAST_TIMESTEPS, ODE_STEPS
from ddpm_jax.evaluation.image_sets import ImageSet
from ddpm_jax.evaluation.quality import FeatureSpace
from ddpm_jax.evaluation.results import Score
from ddpm_jax.paper import figures, report
from ddpm_jax.runs import posthoc, workdir
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.runtime import compilation_cache


def main() -> None:
    """Runs the command."""
    app.run(_define_flags, _evaluate, doc=__doc__)


def _define_flags() -> None:
    sample.define_model_flags()
    flags.DEFINE_list("metrics", ["bpd"], "What to measure; see above.")
    flags.DEFINE_integer("batch_size", None, "Images at a time. Default: ddpm-sample's.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of samples and noise, and of the choice of --num_images.", lower_bound=0)
    flags.DEFINE_string("out", None, "The folder for tables. Default: WORKDIR/tables; of --samples alone, none.")
    flags.DEFINE_integer("num_samples", None, f"To be drawn. Default: {scoring.PAPER_SAMPLES}.", lower_bound=2)
    flags.DEFINE_integer(
        "num_seeds", 1, "Draw and score samples with this many seeds, from --seed on, and print their spread.",
        lower_bound=1,
    )  # fmt: skip
    flags.DEFINE_list("lengths", None, "Lengths of averages of the weights to score, each as --weights=posthoc_LENGTH.")
    flags.DEFINE_string(
        "samples", None, "Images to score in place of drawn ones: an .npz, a folder, a tar, or DATA_SET[:SPLIT]."
    )
    flags.DEFINE_string(
        "reference", None, "What to compare with: an .npz of images or of statistics (mu, sigma), a folder, a tar, or "
        "DATA_SET[:SPLIT]. Default: the images that the model was trained on.",
    )  # fmt: skip
    flags.DEFINE_string("inception_weights", None, "A file to take in place of the published one.")
    flags.DEFINE_string("split", "test", "Of the data set, for bpd, bpd_fast, bpd_ode and rd.")
    flags.DEFINE_integer("num_images", None, "How many of the split, at random. Default: all.", lower_bound=2)
    flags.DEFINE_integer(
        "num_timesteps", None, f"Of bpd_fast, an image (default: {FAST_TIMESTEPS}); of bpd_ode, the steps "
        f"of the solver (default: {ODE_STEPS}).", lower_bound=1,
    )  # fmt: skip


def _evaluate(values: flags.FlagValues) -> int:
    _check_flags(values)
    compilation_cache.enable()
    lengths = [f"{posthoc.PREFIX}{length}" for length in values.lengths or ()]
    model = sample.load(values, weights=lengths[0] if lengths else None) if values.workdir else None
    folder = app.folder(values.out, "--out") if values.out else model and Path(values.workdir) / workdir.TABLES
    if model:
        print(f"Step {model.step}, {model.short_weights} weights; {parallel.describe()}.")
    if lengths:
        _measure_lengths(values, [model, *(sample.load(values, weights=each) for each in lengths[1:])], folder)
        return 0
    if model and not values.samples:
        scoring.check_classes(values.metrics, model.experiment)
    if metrics := [metric for metric in values.metrics if metric in scoring.OF_LIKELIHOOD]:
        _measure_likelihood(values, model, metrics, folder)
    for kind, names in quality.KINDS.items():
        if metrics := [metric for metric in values.metrics if metric in names]:
            _score_samples(values, model, metrics, kind, folder)
    for metric in (metric for metric in values.metrics if metric in scoring.OF_PREDICTIONS):
        _measure_predictions(values, model, metric, folder)
    if model and (verdict := parallel.agree(lambda: report.on_track(model, Path(values.workdir), folder))):
        print(verdict)
    return 0


def _measure_lengths(values: flags.FlagValues, models: Sequence[TrainedModel], folder: Path) -> None:
    """Prints and draws the scores of averages of several lengths."""
    lengths, curves = [float(length) for length in values.lengths], {}
    for length, model in zip(lengths, models, strict=True):
        scores = scoring.evaluate(
            model, values.metrics, num_samples=_num_samples(values), split=values.split,
            num_images=values.num_images, num_timesteps=values.num_timesteps, batch_size=values.batch_size,
            seed=values.seed, folder=folder,
        )  # fmt: skip
        for score in scores:
            print(f"  {model.weights:<16} {score.name:<24} {score}")
            curves.setdefault(score.name, {})[length] = score
    for name, curve in curves.items():
        lowest, highest = (choose(curve, key=lambda length: curve[length].value) for choose in (min, max))
        drawn = parallel.agree(lambda curve=curve: str(figures.draw_lengths(folder, models[0], curve)))
        print(f"{name}: lowest at length {lowest:g}, highest at {highest:g}: {drawn}")


def _check_flags(values: flags.FlagValues) -> None:
    """Refuses flags that do not fit each other.

    Raises:
        ValueError: naming them.
    """
    scoring.check_metrics(values.metrics, scoring.METRICS, name="--metrics")
    if values.lengths:
        scoring.check_metrics(values.metrics, scoring.DURING_TRAINING, name="--metrics with --lengths")
        if values.workdir is None or values.samples or values.weights or values.reference:
            raise ValueError(
                "--lengths scores weights of a run: give its --workdir, no --weights, --samples, --reference."
            )
    if values.workdir is None:
        of_a_model = (*scoring.OF_PREDICTIONS, *scoring.OF_LIKELIHOOD)
        if needing := [metric for metric in values.metrics if metric in of_a_model]:
            raise ValueError(f"--metrics={','.join(needing)} measures a model: give its --workdir.")
        if values.samples is None:
            raise ValueError("Give a --workdir to draw samples from, or --samples.")
        if values.reference is None and set(values.metrics) != {"is"}:
            raise ValueError("--samples without a --workdir need a --reference to be compared with.")


def _measure_likelihood(values: flags.FlagValues, model: TrainedModel, metrics: Sequence[str], folder: Path) -> None:
    scores = scoring.evaluate(
        model, metrics, split=values.split, num_images=values.num_images, num_timesteps=values.num_timesteps,
        batch_size=values.batch_size, seed=values.seed, folder=folder,
    )  # fmt: skip
    print(", ".join(f"{name} {value}" for name, value in scores[0].table["settings"].items()))
    for score in scores:
        print(report.LIKELIHOOD[score.metric](score.table))
        if score.metric == "rd":
            print(f"Figure 5: {parallel.agree(lambda score=score: str(figures.draw_rate_distortion(score)))}")


def _score_samples(
    values: flags.FlagValues, model: TrainedModel | None, metrics: Sequence[str], kind: str, folder: Path | None
) -> None:
    """Prints the scores of samples in one feature space, and their spread over seeds."""
    given = _given_samples(values, model) if values.samples else None
    shape = given.shape[1:] if given else model.experiment.image_shape
    space = _open_space(values, model, metrics, kind, shape)
    quality.check_count(metrics, space, shape, len(given) if given else _num_samples(values))
    scores: dict[str, list[Score]] = {}
    seeds = range(values.seed, values.seed + (1 if given else values.num_seeds))
    for seed in seeds:
        samples = given or _drawn_samples(values, model, seed)
        for score in scoring.evaluate(
            model, metrics, samples=samples, spaces={kind: space}, batch_size=values.batch_size, folder=folder
        ):
            scores.setdefault(score.name, []).append(score)
    extractor, reference = space
    print(
        f"{samples.metadata['images']}, {len(samples)} images; features of {extractor.name} ({extractor.fingerprint})"
    )
    if reference:
        name, count, fingerprint = (reference.metadata[key] for key in ("name", "count", "fingerprint"))
        print(f"reference {name}, {count or 'unknown number of'} images ({fingerprint})")
    for name, of_seeds in scores.items():
        for seed, score in zip(seeds, of_seeds, strict=True):
            print(f"  {name:<24} {score}" + (f"   seed {seed}" if len(seeds) > 1 else ""))
        if len(seeds) > 1:
            numbers = np.array([score.value for score in of_seeds])
            print(f"  {name:<24} {numbers.mean():.6g} ± {numbers.std(ddof=1):.2g} (deviation of {len(seeds)} seeds)")


def _measure_predictions(values: flags.FlagValues, model: TrainedModel, metric: str, folder: Path) -> None:
    """Prints and draws Figure 10."""
    kind = progressive.KINDS[metric]
    space = _open_space(values, model, ["fid"], kind, model.experiment.image_shape)
    (score,) = scoring.evaluate(
        model, [metric], spaces={kind: space}, num_samples=_num_samples(values),
        batch_size=values.batch_size, seed=values.seed, folder=folder,
    )  # fmt: skip
    print(report.predictions(score.table))
    print(f"Figure 10: {parallel.agree(lambda: str(figures.draw_predictions(score)))}")


def _given_samples(values: flags.FlagValues, model: TrainedModel | None) -> ImageSet:
    """Opens --samples."""
    shape, where = model and model.experiment.image_shape, _location(model, values.samples)
    return image_sets.share(lambda: image_sets.open_set(values.samples, image_shape=shape, **where))


def _drawn_samples(values: flags.FlagValues, model: TrainedModel, seed: int) -> ImageSet:
    """Draws from the model into its work folder."""
    return image_sets.draw_to_file(
        model, Path(values.workdir), num_samples=_num_samples(values), seed=seed,
        batch_size=values.batch_size or model.experiment.config.sample.batch_size,
    )  # fmt: skip


def _num_samples(values: flags.FlagValues) -> int:
    return values.num_samples or scoring.PAPER_SAMPLES


def _location(model: TrainedModel | None, name: str) -> dict:
    """Returns where the data set of this name lies, if it is the model's."""
    settings = model and model.experiment.config.data
    if settings and settings.name == name.partition(":")[0]:
        return dict(data_dir=settings.data_dir, memory_limit_gib=settings.memory_limit_gib)
    return {}


def _open_space(
    values: flags.FlagValues, model: TrainedModel | None, metrics: Sequence[str], kind: str, shape: tuple[int, ...]
) -> FeatureSpace:
    """Opens Inception, or the classifier of the model's data set or else the reference's, and the reference."""
    name, reference, labelled = values.reference, None, None
    if name is not None and name.endswith(".npz") and parallel.agree(lambda: quality.holds_statistics(Path(name))):
        reference = Path(name)
    elif name is not None:
        where = _location(model, name)
        reference = image_sets.share(lambda: image_sets.open_set(name, image_shape=shape, **where))
    if name is not None and model is None:
        labelled = lambda: image_sets.open_source(name.partition(":")[0], image_shape=None)  # noqa: E731
    return scoring.open_space(
        kind, metrics, experiment=model and model.experiment, reference=reference, labelled=labelled,
        batch_size=values.batch_size or (model.experiment.config.sample.batch_size if model else 64),
        weights=values.inception_weights and Path(values.inception_weights),
    )  # fmt: skip
