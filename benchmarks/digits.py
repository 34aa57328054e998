"""The demonstration's model of 8x8 images, where overhead counts for as much as arithmetic: training, and sampling.

python -m benchmarks.digits [--quick]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import torch
from diffusers import DDPMPipeline

from benchmarks import command, torch_sampling, torch_training, torch_unet, workloads
from benchmarks.report import Measured, Ratio, Report
from benchmarks.timing import alternate, fastest, ratio
from ddpm_jax import images, parallel, sampling
from ddpm_jax.runs.experiment import Experiment, make_experiment


def measure(*, quick: bool) -> Report:
    """Steps a second with one and with several steps a dispatch; whole chains."""
    config = workloads.digits(quick=quick)
    results = Report(
        "Digits: the small model",
        dict(batch=config.train.batch_size, precision=config.model.dtype, timesteps=config.diffusion.num_timesteps),
    )
    _training(results, quick=quick)
    for batch_size in (2,) if quick else (1, 100):
        _sampling(results, batch_size, quick=quick)
    return results


def _training(results: Report, *, quick: bool) -> None:
    config = workloads.digits(quick=quick)
    steps = config.train.steps_per_dispatch
    batch = workloads.pixels(config, steps=steps)
    one, several = workloads.Training(config), workloads.Training(config)
    names = "ours, one step a dispatch", f"ours, {steps} steps a dispatch"
    contenders: dict[str, Callable[[], object]] = {
        names[0]: lambda: [one.run(batch[i : i + 1], dispatches=1) for i in range(steps)],
        names[1]: lambda: several.run(batch, dispatches=1),
    }
    for name, variant in torch_unet.variants().items():
        contenders[name] = _synchronized(torch_training.train_steps(one.experiment, variant), batch)
    seconds = alternate(contenders, units=steps, repeats=2 if quick else 10).seconds
    best = fastest(seconds, torch_unet.variants())
    rates = {f"train, {name}": Measured([1 / value for value in values], "steps/s") for name, values in seconds.items()}
    results.rows.update(rates)
    results.ratios[f"training speed over the fastest PyTorch ({best})"] = Ratio(ratio(seconds[best], seconds[names[1]]))
    results.ratios[f"{steps} steps a dispatch over one"] = Ratio(ratio(seconds[names[0]], seconds[names[1]]))


def _synchronized(train_steps: Callable, batch) -> Callable[[], None]:
    def run() -> None:
        train_steps(batch)
        torch_unet.synchronize()

    return run


def _sampling(results: Report, batch_size: int, *, quick: bool) -> None:
    experiment = make_experiment(workloads.digits(quick=quick))
    ours, theirs = f"sample {batch_size}, ours", f"sample {batch_size}, DDPMPipeline"
    contenders = {ours: _chain(experiment, batch_size), theirs: _pipeline(experiment, batch_size)}
    seconds = alternate(contenders, repeats=1 if quick else 2, warmups=0).seconds
    results.add(seconds, "s")
    results.ratios[f"sampling speed over DDPMPipeline, {batch_size} images"] = Ratio(
        ratio(seconds[theirs], seconds[ours]), at_least=5.0
    )


def _chain(experiment: Experiment, batch_size: int) -> Callable[[], object]:
    example = jnp.zeros((1, *experiment.image_shape)), jnp.zeros((1,), jnp.int32)
    params = parallel.replicate(jax.jit(experiment.model.init)(jax.random.key(0), *example)["params"])
    sample = parallel.map_batches(lambda params, keys: images.to_uint8(experiment.sample(params, keys)))
    keys = sampling.image_keys(0, jnp.arange(batch_size))
    return lambda: jax.device_get(sample(params, keys))


def _pipeline(experiment: Experiment, batch_size: int) -> Callable[[], object]:
    network, scheduler = torch_unet.make(experiment).eval(), torch_sampling.scheduler(experiment)
    pipeline = DDPMPipeline(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    steps = experiment.process.num_timesteps

    @torch.inference_mode()
    def draw() -> object:
        return pipeline(batch_size=batch_size, num_inference_steps=steps, output_type="np").images

    return draw


if __name__ == "__main__":
    command.run(measure)
