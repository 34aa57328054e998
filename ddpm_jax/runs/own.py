"""A data set, a network and a log of one's own, from Python or from the file of one's own experiment.

They are code, so the work folder holds none of them: whoever loads the model gives them again.
"""

import dataclasses
import functools
import inspect
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from ddpm_jax import data
from ddpm_jax.runs.writers import Writer


@dataclasses.dataclass(frozen=True)
class Own:
    """What takes the place of the U-Net and of the data set that a config describes, and a further log; all optional.

    Attributes:
        network: a Flax module `(x, t, labels) -> output`: x_t [B, H, W, C], t [B] as for the U-Net, labels [B] int32,
            -1 where no class is said, or None for a model without classes. The output is [B, H, W, C], or 2 C channels
            where the variance is learned. If it takes `train`, it is told whether it is trained.
        open_data: opens a split, as 'train': see `data.from_sequence`.
        open_writer: opens one more place that the log of training goes to, on process 0, given the work folder and the
            steps made before: see `writers.Writer`.
    """

    network: nn.Module | None = None
    open_data: Callable[[str], data.Source] | None = None
    open_writer: Callable[[Path, int], Writer] | None = None

    def facts(self) -> dict[str, str]:
        """Returns what all processes of a run must have in common, by names for people."""
        network = re.sub(r" at 0x[0-9a-f]+", "", repr(self.network))  # of functions; of each process another
        return {"network of one's own": network, "data of one's own": str(self.open_data is not None)}


def from_file(path: str, settings: ml_collections.ConfigDict) -> Own:
    """Takes what the file of an experiment defines beside `get_config`, after running it.

    Args:
        path: of a Python file, in which `get_network(config)` returns a network, `open_data(config, split)` a source
            and `open_writer(config, workdir, start_step)` a writer, if it has them.
        settings: given to all three.
    """
    names = runpy.run_path(path)
    get_network, open_data, open_writer = (names.get(name) for name in ("get_network", "open_data", "open_writer"))
    return Own(
        network=get_network(settings) if get_network else None,
        open_data=functools.partial(open_data, settings) if open_data else None,
        open_writer=functools.partial(open_writer, settings) if open_writer else None,
    )


class LabelledNetwork(nn.Module):
    """A network of labels, as one of the conditions that the U-Net takes: one-hot, zeros for no class."""

    network: nn.Module
    out_channels: int

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, cond: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Takes x [B, H, W, C], t [B] and cond [B, D] of `unet.class_condition`, or None.

        Raises:
            ValueError: while tracing, if the output is not [B, H, W, out_channels].
        """
        labels = None if cond is None else jnp.where(cond.any(-1), cond.argmax(-1).astype(jnp.int32), -1)
        takes_train = "train" in inspect.signature(self.network.__call__).parameters
        output = self.network(x, t, labels, **({"train": train} if takes_train else {}))
        if output.shape != (expected := (*x.shape[:-1], self.out_channels)):
            raise ValueError(
                f"The network {type(self.network).__name__} must return {list(expected)} for images {list(x.shape)}, "
                f"not {list(output.shape)}: the channels of the images, twice as many where diffusion.var_type is "
                "learned or learned_range."
            )
        return output
