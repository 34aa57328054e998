"""The train step: ours, as train.py runs it, beside the usual PyTorch loop and the limit of the hardware.

On a CPU the CIFAR-10 model with batch 8 in float32, on a GPU with batch 128 in bfloat16.
python -m benchmarks.train_step [--quick]; for 256x256 see train_step_256.
"""

import jax
import ml_collections

from benchmarks import command, hardware, torch_training, torch_unet, workloads
from benchmarks.report import Ratio, Report
from benchmarks.timing import alternate, fastest, ratio

OURS, PRODUCT = "ours", "matrix product"


def measure(*, quick: bool) -> Report:
    """The CIFAR-10 model."""
    return compare("Train step, CIFAR-10 model", workloads.cifar10(quick=quick), quick=quick)


def compare(title: str, config: ml_collections.ConfigDict, *, quick: bool) -> Report:
    """Times the train step of a config in all its forms."""
    steps = 20 if hardware.on_gpu() and not quick else 1  # a round: the host runs ahead of a GPU
    batch = workloads.pixels(config)
    ours = workloads.Training(config)
    product, product_flops = hardware.matrix_product(config.model.dtype, quick=quick)
    contenders = {OURS: lambda: ours.run(batch, dispatches=steps)}
    for name, variant in torch_unet.variants().items():
        contenders[name] = _repeated(torch_training.train_steps(ours.experiment, variant), batch, steps)
    units = dict.fromkeys(contenders, steps) | {PRODUCT: 1}
    rounds = alternate(
        contenders | {PRODUCT: product}, units=units, repeats=2 if quick else 10, warmups=1 if quick else 2
    )

    seconds, flops = rounds.seconds, ours.flops()
    limit = min(seconds.pop(PRODUCT)) * flops / product_flops  # seconds a step at the speed of the product
    best = fastest(seconds, torch_unet.variants())
    results = Report(
        title, dict(batch=config.train.batch_size, precision=config.model.dtype, devices=jax.device_count())
    )
    results.add(seconds, "s/step")
    results.ratios = {
        f"speed over the fastest PyTorch ({best})": Ratio(
            ratio(seconds[best], seconds[OURS]), at_least=1.25 if hardware.on_gpu() else 1.0
        ),
        "share of the speed of a large matrix product": Ratio(limit / min(seconds[OURS])),
    }
    results.notes = [
        f"{flops:.3g} floating-point operations a step; a large matrix product makes {flops / limit:.3g} a second. "
        f"First call, with compilation: {', '.join(f'{name} {rounds.first[name]:.1f} s' for name in seconds)}."
    ]
    return results


def _repeated(train_steps, batch, steps: int):
    def run() -> None:
        for _ in range(steps):
            train_steps(batch)
        torch_unet.synchronize()

    return run


if __name__ == "__main__":
    command.run(measure)
