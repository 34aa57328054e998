"""What a training run does from time to time: grids of samples, and scores of the model so far."""

from collections.abc import Callable
from pathlib import Path

from ddpm_jax import images, parallel, training
from ddpm_jax.runs import sample_files, workdir
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runs.metric_log import MetricLog
from ddpm_jax.runs.trained_model import TrainedModel, average_name

EvaluateFn = Callable[[TrainedModel], dict[str, float]]  # the model so far -> scores by name


def events(
    experiment: Experiment, directory: Path, prepare_evaluation: Callable[[Experiment], EvaluateFn] | None
) -> list[tuple[int, Callable[[MetricLog, training.TrainState, int], None]]]:
    """Returns how often grids and scores are due, in steps (0: never), and what makes them.

    Raises:
        ValueError: if scores are due and nothing measures them.
    """
    settings, grid = experiment.config.train, experiment.config.sample

    def draw_grid(log: MetricLog, state: training.TrainState, step: int) -> None:
        pixels = sample_files.draw_in_memory(
            experiment, state.ema_params, num_samples=grid.num_samples, batch_size=grid.batch_size, seed=grid.seed
        )
        path = directory / workdir.SAMPLES / f"step_{step:08d}.png"
        model = TrainedModel(experiment, state.ema_params, step, average_name(experiment.config), directory)
        title = sample_files.title(model, "Samples", seed=grid.seed)
        picture = images.labelled_grid(pixels, title=title)
        parallel.agree(lambda: images.save_png(path, picture))
        log.picture(step, "samples", picture)
        print(f"Samples of step {step}: {path}")

    if not settings.eval_every:
        return [(settings.sample_every, draw_grid)]
    if prepare_evaluation is None:
        raise ValueError(
            f"train.eval_every={settings.eval_every} asks for scores, but there is nothing to measure them with: pass "
            "prepare_evaluation=ddpm_jax.evaluation.prepare, or set it to 0."
        )
    evaluate = prepare_evaluation(experiment)

    def log_scores(log: MetricLog, state: training.TrainState, step: int) -> None:
        model = TrainedModel(experiment, state.ema_params, step, average_name(experiment.config))
        log.log(step, evaluate(model))

    return [(settings.sample_every, draw_grid), (settings.eval_every, log_scores)]
