"""Averages of the weights of any length after training, from those that checkpoints hold (Karras et al. 2024).

A run keeps power function averages of two lengths or more (`optim.averages`), and some of its checkpoints for good
(`train.keep_period`). `averaging.reconstruction` says how to sum them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ddpm_jax import averaging
from ddpm_jax.runs import checkpoint

PREFIX = "posthoc_"  # of the names of such weights
LARGEST_ERROR = 0.1  # of the profile, relative; what is further off is another average than the one asked for


def restore(
    directory: Path, averages: Sequence[str], like: Any, *, length: float, step: int | None = None
) -> tuple[int, Any]:
    """Sums stored averages to one of another length, changing nothing on disk.

    Args:
        directory: the folder of the checkpoints.
        averages: the names of those that a run keeps; two or more are power function averages.
        like: the abstract form of the weights, from `checkpoint.abstract`.
        length: sigma_rel of the average, see `averaging`.
        step: of training that it ends at; None: that of the newest checkpoint.

    Returns:
        The step and the weights.

    Raises:
        ValueError: if the checkpoints do not hold enough to make it, or cannot be read.
        FileNotFoundError: if there is no checkpoint, or none of that step.
    """
    powers = {name: number for name in averages for kind, number in [averaging.parse(name)] if kind == averaging.POWER}
    step, _ = checkpoint.restore_weights(directory, next(iter(powers)), like, step=step)
    stored = [(at, name) for name in powers for at in checkpoint.steps_with(directory, name, up_to=step)]
    coefficients, error = averaging.reconstruction(
        [at for at, _ in stored], [powers[name] for _, name in stored], step=step, length=length
    )
    if error > LARGEST_ERROR:
        held = sorted({at for at, _ in stored})
        raise ValueError(
            f"The checkpoints of steps {held} do not make up an average of length {length:g}: the nearest is "
            f"{error:.0%} off. Lengths between those of {', '.join(powers)} take fewer; train.keep_period keeps more."
        )
    total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    for (at, name), coefficient in zip(stored, coefficients, strict=True):
        _, average = checkpoint.restore_weights(directory, name, like, step=at)
        total = jax.tree.map(lambda so_far, leaf, c=coefficient: so_far + jnp.float32(c) * leaf, total, average)
    return step, total
