"""A trained model from the folder of its run, which is all that is needed to use it."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ddpm_jax import parallel
from ddpm_jax.metrics import features
from ddpm_jax.runs import checkpoint, config
from ddpm_jax.runs.experiment import Experiment, make_experiment
from ddpm_jax.runs.workdir import CHECKPOINTS, read_config
from ddpm_jax.runtime import program

WEIGHTS = "weights_sha256"  # the setting that tells models of the same names apart


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model: `experiment.sample(params, keys)` draws from it.

    Attributes:
        experiment: the process, the network and the image shape.
        params: of the network, float32.
        step: of training.
        weights: 'raw', or the name of an average with its decay, such as 'ema_0.9999'.
        workdir: that it was loaded from; None for one of a training run that goes on.
    """

    experiment: Experiment
    params: Any
    step: int
    weights: str
    workdir: Path | None = None

    @property
    def short_weights(self) -> str:
        """Returns the name in file names and scores, where the average with the config's own decay is 'ema'."""
        return "ema" if self.weights == average_name(self.experiment.config) else self.weights

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns 16 hex digits that other parameters do not have; every process asks for it alike."""
        return parallel.agree(lambda: features.fingerprint(self.params))

    def sampling_with(self, **settings: Any) -> "TrainedModel":
        """Returns the model with other `sample` settings, such as sampler="ddim", steps=50.

        Raises:
            ValueError: if they do not fit the model.
        """
        changed = ml_collections.ConfigDict(self.experiment.config.to_dict())
        changed.sample.update(settings)
        config.check(changed.lock())
        experiment = dataclasses.replace(self.experiment, config=changed)
        experiment.sampler()
        return dataclasses.replace(self, experiment=experiment)

    def owns(self, path: Path) -> bool:
        """Tells whether a file lies in the work folder that the model was loaded from."""
        return self.workdir is not None and self.workdir.resolve() in path.resolve().parents


def unsigned(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings as they were written down before they held the fingerprint of the weights."""
    return {
        name: unsigned(value) if isinstance(value, dict) else value
        for name, value in settings.items() if name != WEIGHTS
    }  # fmt: skip


def are_same(recorded: dict[str, Any], settings: dict[str, Any], *, or_unsigned: bool) -> bool:
    """Tells whether what was recorded has these settings; with `or_unsigned`, also if it is older than fingerprints."""
    return recorded == settings or (or_unsigned and recorded == unsigned(settings))


def average_name(settings: ml_collections.ConfigDict) -> str:
    """Returns the name of the average that a run keeps, such as 'ema_0.9999'."""
    return f"ema_{settings.optim.ema_decay:g}"


def load(workdir: str | os.PathLike, *, step: int | None = None, weights: str | None = None) -> TrainedModel:
    """Loads the trained model of a work folder, given the folder alone; changes nothing in it.

    With several processes all call it alike: process 0 reads, the others receive.

    Args:
        workdir: of a run of train.py, perhaps one still going on.
        step: of the checkpoint; None: the newest that can be read.
        weights: 'raw', the parameters themselves; 'ema' or, with its decay, 'ema_0.9999', their average; None: as the
            config's sample.weights says.

    Returns:
        The model, its parameters on the default device.

    Raises:
        FileNotFoundError: if that is no work folder, or there is no checkpoint yet.
        ValueError: if its config is wrong, there are no such weights, the checkpoints cannot be read, or a process runs
            other code than process 0.
    """
    parallel.check_same(program.facts())
    folder = Path(workdir)
    settings = config.from_json(parallel.agree(lambda: config.to_json(read_config(folder))))
    experiment = make_experiment(settings)
    name = _full_name(weights or settings.sample.weights, settings)
    like = experiment.abstract_params()
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    restored: list[Any] = []

    def restore() -> int:
        item = "params" if name == "raw" else "ema_params"
        restored_step, params = checkpoint.restore_weights(
            folder / CHECKPOINTS, item, checkpoint.abstract(like, device), step=step
        )
        restored.append(params)
        return restored_step

    step = parallel.agree(restore)
    params = restored[0] if restored else jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return TrainedModel(experiment, jax.device_put(parallel.broadcast(params), device), step, name, folder)


def _full_name(weights: str, settings: ml_collections.ConfigDict) -> str:
    average = average_name(settings)
    names = {"raw": "raw", "ema": average, average: average}
    if weights not in names:
        raise ValueError(f"There are no weights {weights!r}; choose from {', '.join(names)}.")
    return names[weights]
