"""Memory that the train step needs on a device, by the compiled program: rematerialisation and microbatches.

On a GPU PyTorch's peak is measured beside it; on a CPU PyTorch does not say. python -m benchmarks.memory [--quick]
"""

from benchmarks import command, hardware, workloads
from benchmarks.report import Measured, Ratio, Report
from ddpm_jax.runs import dry_run, trainer
from ddpm_jax.runs.experiment import make_experiment


def measure(*, quick: bool) -> Report:
    """GiB, at the paper's batch of 128."""
    base = workloads.cifar10(quick=quick)
    base.train.batch_size = 8 if quick else 128
    results = Report("Memory of the train step", dict(batch=base.train.batch_size, precision=base.model.dtype))
    plain = f"batch {base.train.batch_size}"
    variants = {
        plain: {},
        f"{plain}, remat": {"model.remat": True},
        f"{plain}, 4 microbatches": {"train.microbatches": 4},
        f"{plain}, 16 microbatches" if not quick else f"{plain}, 8 microbatches": {
            "train.microbatches": 8 if quick else 16
        },
    }
    for name, changes in variants.items():
        config = base.copy_and_resolve_references()
        config.update_from_flattened_dict(changes)
        results.rows[name] = Measured([_needed(config) / 2**30], "GiB")
    for name in list(variants)[1:]:
        results.ratios[f"{name}, over {plain}"] = Ratio(results.rows[name].values[0] / results.rows[plain].values[0])
    if hardware.on_gpu():
        results.rows["PyTorch eager, peak"] = Measured([_torch_peak(base) / 2**30], "GiB")
    return results


def _needed(config) -> int:
    """Returns the bytes that a step needs on each device."""
    return dry_run.cost(trainer.lower(make_experiment(config))).memory


def _torch_peak(config) -> int:
    import torch

    from benchmarks import torch_training, torch_unet

    torch.cuda.reset_peak_memory_stats()
    steps = torch_training.train_steps(make_experiment(config), torch_unet.variants()["PyTorch eager, channels_last"])
    batch = workloads.pixels(config)
    for _ in range(3):
        steps(batch)
    torch_unet.synchronize()
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    command.run(measure)
