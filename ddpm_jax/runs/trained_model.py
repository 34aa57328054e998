"""A trained model from the folder of its run, which is all that is needed to use it."""

import contextlib
import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ddpm_jax import averaging, parallel
from ddpm_jax.metrics import features
from ddpm_jax.runs import checkpoint, config, posthoc
from ddpm_jax.runs.experiment import Experiment, GuidedParams, make_experiment
from ddpm_jax.runs.own import Own
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
        weaker: of the same run, that samples are guided away from; None: as the config's sample.guidance_weights.
    """

    experiment: Experiment
    params: Any
    step: int
    weights: str
    workdir: Path | None = None
    weaker: "TrainedModel | None" = None

    @property
    def sampling_params(self) -> Any:
        """Returns what `experiment.sample` takes: the parameters, or both networks' where one is guided by another."""
        return self.params if self.weaker is None else GuidedParams(self.params, self.weaker.params)

    @property
    def short_weights(self) -> str:
        """Returns the name in file names and scores, where the average with the config's own decay is 'ema'."""
        return "ema" if self.weights == average_name(self.experiment.config) else self.weights

    @functools.cached_property
    def fingerprint(self) -> str:
        """Returns 16 hex digits that other parameters do not have; every process asks for it alike."""
        return parallel.agree(lambda: features.fingerprint(self.params))

    def sampling_with(self, **settings: Any) -> "TrainedModel":
        """Returns the model with other `sample` settings, such as sampler="ddim", steps=50, or labels="3".

        With several processes all call it alike.

        Raises:
            ValueError: if they do not fit the model, or there are no weights as guidance_weights names.
            FileNotFoundError: if there is no checkpoint of guidance_step.
        """
        changed = ml_collections.ConfigDict(self.experiment.config.to_dict())
        changed.sample.update(settings)
        config.check(changed.lock())
        experiment = dataclasses.replace(self.experiment, config=changed)
        experiment.sampler()
        return _with_weaker(dataclasses.replace(self, experiment=experiment, weaker=None))

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


def load(
    workdir: str | os.PathLike, *, step: int | None = None, weights: str | None = None, own: Own | None = None
) -> TrainedModel:
    """Loads the trained model of a work folder, given the folder alone; changes nothing in it.

    With several processes all call it alike: process 0 reads, the others receive.

    Args:
        workdir: of a run of train.py, perhaps one still going on.
        step: of the checkpoint; None: the newest that can be read.
        weights: 'raw', the parameters themselves; 'ema' or, with its decay, 'ema_0.9999', their average; another of
            optim.averages by its name; 'posthoc_0.08', one of another length from those that all checkpoints up to the
            step hold (`posthoc`); None: as the config's sample.weights says.
        own: the network and the data that the run was trained with, where they were one's own.

    Returns:
        The model, its parameters on the default device.

    Raises:
        FileNotFoundError: if that is no work folder, or there is no checkpoint yet.
        ValueError: if its config is wrong, there are no such weights, the checkpoints cannot be read, or a process runs
            other code than process 0.
    """
    parallel.check_same(program.facts)
    folder = Path(workdir)
    settings = settings_of(folder)
    return _with_weaker(_load(folder, make_experiment(settings, own), step, weights or settings.sample.weights))


def settings_of(workdir: str | os.PathLike) -> ml_collections.ConfigDict:
    """Reads the config of a run on process 0, for all; errors as `workdir.read_config`."""
    return config.from_json(parallel.agree(lambda: config.to_json(read_config(workdir))))


def _with_weaker(model: TrainedModel) -> TrainedModel:
    """Loads the weaker network that the samples of a model are to be guided by, if they are."""
    settings = model.experiment.config.sample
    if not settings.guidance or not settings.guidance_weights or model.workdir is None:
        return model
    step = settings.guidance_step or model.step
    weaker = _load(model.workdir, model.experiment, step, settings.guidance_weights)
    if (weaker.weights, weaker.step) == (model.weights, model.step):
        raise ValueError(
            f"sample.guidance_weights={settings.guidance_weights!r} of step {step} are the model's own, and no network "
            "is guided by itself: choose other weights, or a sample.guidance_step."
        )
    return dataclasses.replace(model, weaker=weaker)


def _load(folder: Path, experiment: Experiment, step: int | None, weights: str) -> TrainedModel:
    name = _full_name(weights, experiment.config)
    like = experiment.abstract_params
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    restored: list[Any] = []

    def restore() -> int:
        abstract = checkpoint.abstract(like, device)
        if name.startswith(posthoc.PREFIX):
            restored_step, params = posthoc.restore(
                folder / CHECKPOINTS, experiment.config.optim.averages, abstract,
                length=float(name.removeprefix(posthoc.PREFIX)), step=step,
            )  # fmt: skip
        else:
            item = {"raw": "params", average_name(experiment.config): "ema_params"}.get(name, name)
            restored_step, params = checkpoint.restore_weights(folder / CHECKPOINTS, item, abstract, step=step)
        restored.append(params)
        return restored_step

    step = parallel.agree(restore)
    params = restored[0] if restored else jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return TrainedModel(experiment, jax.device_put(parallel.broadcast(params), device), step, name, folder)


def _full_name(weights: str, settings: ml_collections.ConfigDict) -> str:
    average = average_name(settings)
    names = {"raw": "raw", "ema": average, average: average} | {name: name for name in settings.optim.averages}
    if weights in names:
        return names[weights]
    powers = [name for name in settings.optim.averages if averaging.parse(name)[0] == averaging.POWER]
    if weights.startswith(posthoc.PREFIX) and len(powers) > 1:
        with contextlib.suppress(ValueError):
            return f"{posthoc.PREFIX}{averaging.parse(weights.replace(posthoc.PREFIX, 'power_', 1))[1]:g}"
    more = f", {posthoc.PREFIX}LENGTH" if len(powers) > 1 else ""
    raise ValueError(f"There are no weights {weights!r}; choose from {', '.join(names)}{more}.")
