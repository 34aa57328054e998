"""Memory that the train step needs on a device, by the compiled program: rematerialisation and microbatches.

On a GPU PyTorch's peak is measured beside it; on a CPU PyTorch does not say. python -m benchmarks.memory [--quick]
"""

import jax

from benchmarks import command, hardware, workloads
from benchmarks.report import Measured, Ratio, Report
from ddpm_jax import parallel
from ddpm_jax.runs import checkpoint, dry_run, experiment
from train import creator, make_step


def measure(*, quick: bool) -> Report:
    """GiB, at the paper's batch of 128."""
    base = workloads.cifar10(quick=quick)
    base.train.batch_size = 8 if quick else 128
    found = Report("Memory of the train step", dict(batch=base.train.batch_size, precision=base.model.dtype))
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
        found.rows[name] = Measured([_needed(config) / 2**30], "GiB")
    for name in list(variants)[1:]:
        found.ratios[f"{name}, over {plain}"] = Ratio(found.rows[name].values[0] / found.rows[plain].values[0])
    if hardware.on_gpu():
        found.rows["PyTorch eager, peak"] = Measured([_torch_peak(base) / 2**30], "GiB")
    return found


def _needed(config) -> int:
    """Bytes on each device."""
    made = experiment.make(config)
    optimizer, train_step = make_step(made)
    state = checkpoint.abstract(jax.eval_shape(creator(made, optimizer)), parallel.replicated())
    shape = (1, config.train.batch_size, *made.image_shape)
    return dry_run.cost(parallel.lower_train_steps(train_step, state, shape=shape)).memory


def _torch_peak(config) -> int:
    import torch

    from benchmarks import torch_training, torch_unet

    torch.cuda.reset_peak_memory_stats()
    steps = torch_training.train_steps(experiment.make(config), torch_unet.variants()["PyTorch eager, channels_last"])
    batch = workloads.pixels(config)
    for _ in range(3):
        steps(batch)
    torch_unet.synchronize()
    return torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    command.run(measure)
