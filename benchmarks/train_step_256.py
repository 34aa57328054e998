"""The train step of the paper's 256x256 model, at the largest batch that fits, beside PyTorch's.

On a GPU, in bfloat16: batches are halved from 64 on until both fit. python -m benchmarks.train_step_256 [--quick]
"""

import gc

import jax
import torch

from benchmarks import command, train_step, workloads
from benchmarks.report import Report

_LARGEST = 64


def measure(*, quick: bool) -> Report:
    """The largest batch that does not run out of memory."""
    batch_size = 1 if quick else _LARGEST
    while True:
        try:
            config = workloads.celebahq256(batch_size=batch_size, quick=quick)
            return train_step.compare("Train step, 256x256 model", config, quick=quick)
        except (jax.errors.JaxRuntimeError, torch.OutOfMemoryError) as error:
            of_memory = isinstance(error, torch.OutOfMemoryError) or "RESOURCE_EXHAUSTED" in str(error)
            if batch_size == 1 or not of_memory:
                raise
        gc.collect()  # what the error's frames held
        torch.cuda.empty_cache()  # PyTorch keeps what it frees, and JAX could not have it
        batch_size //= 2


if __name__ == "__main__":
    command.run(measure)
