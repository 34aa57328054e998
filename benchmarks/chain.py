"""The reverse chain: ours, as sample.py runs it, beside diffusers' loop, and beside the U-Net calls alone.

On a GPU the whole chain of 1000 steps, for 256 images. On a CPU the last 20 for 8, as every step costs the same: a
whole chain is 50 times that. python -m benchmarks.chain [--quick]
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from benchmarks import command, hardware, torch_sampling, torch_unet, workloads
from benchmarks.report import Ratio, Report
from benchmarks.timing import alternate, fastest, ratio
from ddpm_jax import parallel, sampling
from ddpm_jax.runs.experiment import Experiment, make_experiment

OURS, CALLS, PRODUCT = "ours, the chain", "ours, U-Net calls alone", "matrix product"


def measure(*, quick: bool) -> Report:
    """The CIFAR-10 model."""
    config = workloads.cifar10(quick=quick)
    experiment = make_experiment(config)
    gpu = hardware.on_gpu()
    batch_size = 256 if gpu and not quick else config.train.batch_size
    num_steps = experiment.process.num_timesteps if gpu and not quick else 20
    params = parallel.replicate(jax.jit(experiment.model.init)(jax.random.key(0), *_zeros(experiment, 1))["params"])
    product, product_flops = hardware.matrix_product(config.model.dtype, quick=quick)
    contenders = {
        OURS: _chain(experiment, params, batch_size=batch_size, num_steps=num_steps),
        CALLS: _calls(experiment, params, batch_size=batch_size, num_steps=num_steps),
    }
    for name, variant in torch_unet.variants().items():
        contenders[name] = torch_sampling.chain(experiment, variant, batch_size=batch_size, num_steps=num_steps)
    units = dict.fromkeys(contenders, num_steps) | {PRODUCT: 1}
    rounds = alternate(contenders | {PRODUCT: product}, units=units, repeats=2 if quick else 5, warmups=1)

    flops = jax.jit(experiment.denoise_fn(params)).lower(*_zeros(experiment, batch_size)).cost_analysis()["flops"]
    seconds = rounds.seconds
    limit = min(seconds.pop(PRODUCT)) * flops / product_flops
    best = fastest(seconds, torch_unet.variants())
    results = Report(
        "Reverse chain, CIFAR-10 model",
        dict(
            batch=batch_size, precision=config.model.dtype, steps=f"{num_steps} of {experiment.process.num_timesteps}"
        ),
    )
    results.add(seconds, "s/step")
    results.ratios = {
        f"speed over the fastest PyTorch ({best})": Ratio(
            ratio(seconds[best], seconds[OURS]), at_least=1.0 if gpu else 1.2
        ),
        "time of the chain over that of its U-Net calls": Ratio(ratio(seconds[OURS], seconds[CALLS]), at_most=1.03),
        "share of the speed of a large matrix product": Ratio(limit / min(seconds[OURS])),
    }
    if gpu:
        results.ratios["speed over diffusers' loop with a compiled model"] = Ratio(
            ratio(seconds["torch.compile, channels_last"], seconds[OURS]), at_least=2.0
        )
    whole = {name: batch_size / (min(times) * experiment.process.num_timesteps) for name, times in seconds.items()}
    results.notes = [
        f"Images a second by the whole chain of {experiment.process.num_timesteps} steps: "
        f"{', '.join(f'{name} {rate:.3g}' for name, rate in whole.items())}.",
        f"{flops:.3g} floating-point operations a step. "
        f"First call, with compilation: {', '.join(f'{name} {rounds.first[name]:.1f} s' for name in seconds)}.",
    ]
    return results


def _zeros(experiment: Experiment, batch_size: int) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((batch_size, *experiment.image_shape)), jnp.zeros((batch_size,), jnp.int32)


def _chain(experiment: Experiment, params, *, batch_size: int, num_steps: int) -> Callable[[], object]:
    def draw(params, keys: jax.Array) -> jax.Array:
        x_t = sampling.noise(keys, experiment.process.num_timesteps, experiment.image_shape)
        return sampling.decode(
            experiment.process, experiment.denoise_fn(params), x_t=x_t, num_steps=num_steps, keys=keys
        )

    mapped, keys = parallel.map_batches(draw), sampling.image_keys(0, jnp.arange(batch_size))
    return lambda: jax.device_get(mapped(params, keys))


def _calls(experiment: Experiment, params, *, batch_size: int, num_steps: int) -> Callable[[], object]:
    """One dispatch a call, each on the output of the one before; nothing goes through the host."""
    call = jax.jit(lambda params, x, t: experiment.denoise_fn(params)(x, t))
    x, t = _zeros(experiment, batch_size)

    def run() -> jax.Array:
        x_t = x
        for _ in range(num_steps):
            x_t = call(params, x_t, t)
        return jax.block_until_ready(x_t)

    return run


if __name__ == "__main__":
    command.run(measure)
