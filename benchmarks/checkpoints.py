"""Checkpoints of the CIFAR-10 model: how long a save holds the step loop up, when it is safe on disk, and to restore.

Beside `torch.save` of the same arrays, which holds the loop up for all of its time. The disk is that of
`tempfile` (TMPDIR chooses another).

python -m benchmarks.checkpoints [--quick]
"""

import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import torch

from benchmarks import command, hardware, workloads
from benchmarks.report import Ratio, Report
from ddpm_jax import parallel
from ddpm_jax.runs import checkpoint

_EVERY = 5000  # steps, the default of train.checkpoint_every


def measure(*, quick: bool) -> Report:
    """Steps with and without a save under way."""
    config = workloads.cifar10(quick=quick)
    training, batch = workloads.Training(config), workloads.pixels(config)
    steps, saves = (50 if hardware.on_gpu() and not quick else 3), (2 if quick else 3)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(training.state))
    results = Report(
        "Checkpoints", {"state": f"{size / 2**30:.2f} GiB", "steps around a save": steps, "batch": len(batch[0])}
    )
    training.run(batch, dispatches=2)  # compiles
    plain, held, whole, calls = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = checkpoint.Checkpoints(Path(folder), keep=2, keep_period=0)
        for _ in range(saves):
            plain.append(_seconds(lambda: training.run(batch, dispatches=steps)))
            begin = time.perf_counter()
            calls.append(_seconds(lambda: checkpoints.save(training.state)))
            training.run(batch, dispatches=steps)
            held.append(time.perf_counter() - begin - plain[-1])
            checkpoints.wait()
            whole.append(time.perf_counter() - begin)
        restored = [_seconds(lambda: checkpoints.restore(_like(training.state))) for _ in range(saves)]
        checkpoints.close()
        arrays = [torch.from_numpy(np.array(leaf)) for leaf in jax.tree.leaves(training.state)]
        theirs = [_seconds(lambda: torch.save(arrays, Path(folder) / "arrays.pt")) for _ in range(saves)]
        theirs_restored = [
            _seconds(lambda: torch.load(Path(folder) / "arrays.pt", weights_only=True)) for _ in range(saves)
        ]
    results.add(
        {
            f"{steps} steps": plain,
            "held up by a save: the call": calls,
            f"held up by a save: the call, and {steps} slower steps after it": [max(0.0, value) for value in held],
            "from the call until whole on disk, with checksums": whole,
            "restore, with checksums": restored,
            "torch.save": theirs,
            "torch.load": theirs_restored,
        },
        "s",
    )
    interval = _EVERY * min(plain) / steps
    share = statistics.median(held) / interval
    results.ratios = {f"share of {_EVERY} steps that a save costs": Ratio(max(0.0, share), at_most=0.02)}
    return results


def _like(state):
    return checkpoint.abstract(state, parallel.replicated())


def _seconds(work) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begin


if __name__ == "__main__":
    command.run(measure)
