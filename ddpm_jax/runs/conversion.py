"""Work folders made of weights from elsewhere, and trained models written for elsewhere."""

import contextlib
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax.traverse_util import flatten_dict, unflatten_dict

from ddpm_jax.interop import diffusers, fitting, hub, safetensors_file, score_sde, tf1
from ddpm_jax.runs import checkpoint, config, defaults, trainer, workdir
from ddpm_jax.runs.experiment import Experiment, make_experiment
from ddpm_jax.runs.trained_model import TrainedModel
from ddpm_jax.training import TrainState

_CONFIG = "config"  # beside the weights in a .safetensors file


def from_diffusers(
    folder: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    settings: ml_collections.ConfigDict | None = None,
    step: int = 0,
) -> None:
    """Makes a work folder of a diffusers pipeline with a `UNet2DModel`, to be sampled, evaluated and trained further.

    Its weights become the parameters and their averages alike; the optimizer starts anew.

    Args:
        folder: of the pipeline, see `interop.diffusers.read_pipeline`; or its name at the Hugging Face hub, such as
            'google/ddpm-cifar10-32', which is downloaded (`interop.hub.fetch`).
        directory: the work folder, which must not hold a run.
        settings: a config for what the pipeline does not say: the data, the dropout, how to train. None: the defaults,
            and a data set that is still to be named in config.json.
        step: of training that the weights are said to be of.

    Raises:
        FileNotFoundError: if a file of the pipeline is missing.
        ValueError: if the pipeline cannot be expressed, its weights do not fit its config, or `directory` holds a run.
    """
    pipeline = diffusers.read_pipeline(hub.fetch(str(folder)) if hub.is_name(str(folder)) else folder)
    sections = {section: dict(fields) for section, fields in pipeline.settings.items()}
    if settings is not None:
        del sections["model"]["dropout"]  # a setting of training
    merged = ml_collections.ConfigDict((settings or defaults.get_config()).to_dict())
    if settings is None:
        merged.data.update(name="image_folder", data_dir="")
        merged.train.label_dropout = 0.0  # it has never been told no class
    for section, fields in sections.items():
        merged[section].update(fields)
    trains, does_not = ("hybrid", "mse") if merged.diffusion.var_type.startswith("learned") else ("mse", "hybrid")
    if merged.diffusion.loss_type == does_not:
        merged.diffusion.loss_type = trains
    write_run(directory, merged.lock(), pipeline.params, step=step)


def from_safetensors(
    path: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    settings: ml_collections.ConfigDict | None = None,
    step: int | None = None,
) -> None:
    """Makes a work folder of weights that `to_safetensors` wrote; arguments and errors as of `from_diffusers`.

    `settings` and `step` None: those that the file holds.

    Raises:
        ValueError: if the file holds no settings, too.
    """
    arrays, metadata = safetensors_file.read_arrays(path)
    if settings is None and _CONFIG not in metadata:
        raise ValueError(f"{os.fspath(path)} does not say of which network its weights are: name it with --config=...")
    settings = settings or config.from_json(metadata[_CONFIG])
    step = int(metadata.get("step", 0)) if step is None else step
    write_run(directory, settings, unflatten_dict(arrays, sep="."), step=step)


def from_tf1(
    path: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    settings: ml_collections.ConfigDict | None = None,
    step: int | None = None,
) -> None:
    """Makes a work folder of a checkpoint of the official TensorFlow release, its parameters and their average.

    Args:
        path: see `interop.tf1.read_checkpoint`.
        directory: the work folder, which must not hold a run.
        settings: the config, of which such a checkpoint says nothing.
        step: of training; None: the one that the checkpoint holds.

    Raises:
        ModuleNotFoundError: without TensorFlow.
        ValueError: without `settings`; if the weights are of another network; or `directory` holds a run.
    """
    if settings is None:
        raise ValueError(f"{os.fspath(path)} does not say of which network its weights are: name it with --config=...")
    read = tf1.read_checkpoint(path)
    averages = tf1.params_from_tf(read.averages) if read.averages else None
    step = read.step or 0 if step is None else step
    write_run(directory, settings, tf1.params_from_tf(read.variables), ema_params=averages, step=step)


def from_score_sde(
    path: str | os.PathLike,
    directory: str | os.PathLike,
    *,
    settings: ml_collections.ConfigDict | None = None,
    step: int = 0,
) -> None:
    """Makes a work folder of a checkpoint of score_sde's network `ddpm`; arguments and errors as of `from_tf1`.

    The weights are taken for those of the paper's process in discrete steps; see `interop.score_sde`.
    """
    if settings is None:
        raise ValueError(f"{os.fspath(path)} does not say of which network its weights are: name it with --config=...")
    read = score_sde.read_checkpoint(path, make_experiment(settings).abstract_params)
    write_run(directory, settings, read.params, ema_params=read.ema_params, step=step)


def write_run(
    directory: str | os.PathLike,
    settings: ml_collections.ConfigDict,
    params: Any,
    *,
    ema_params: Any = None,
    step: int = 0,
) -> None:
    """Makes a work folder with one checkpoint of these weights.

    Args:
        directory: the work folder, which must not hold a run.
        settings: its config.
        params: of the network that the config describes, nested arrays.
        ema_params: their average; None: the parameters themselves.
        step: of training.

    Raises:
        ValueError: if the settings are wrong, the weights are of another network, or `directory` holds a run.
    """
    directory = Path(directory)
    config.check(settings)
    experiment = make_experiment(settings)
    for weights in (params, ema_params or params):
        fitting.check_fits(flatten_dict(weights), experiment.abstract_params, what="The weights")
    if (directory / workdir.CONFIG).exists() or (directory / workdir.CHECKPOINTS).exists():
        raise ValueError(f"{directory.absolute()} holds a run: choose another folder.")
    state = _state(experiment, params, ema_params or params, step)
    with workdir.locked(directory):
        workdir.write_config(directory, settings)
        checkpoints = checkpoint.Checkpoints(
            directory / workdir.CHECKPOINTS, keep=settings.train.keep, keep_period=settings.train.keep_period
        )
        with contextlib.closing(checkpoints):
            checkpoints.save(state)
            checkpoints.wait()


def _state(experiment: Experiment, params: Any, ema_params: Any, step: int) -> TrainState:
    """Makes the state of training that begins with these weights."""
    as_arrays = lambda tree: jax.tree.map(lambda x: jnp.array(x, jnp.float32), tree)  # noqa: E731
    optimizer, _ = trainer.make_step(experiment)
    state = trainer.make_init(experiment, optimizer)(params=as_arrays(params))
    return state.replace(
        step=jnp.int32(step), ema_params=as_arrays(ema_params),
        averages={name: as_arrays(ema_params) for name in state.averages},
    )  # fmt: skip


def to_diffusers(model: TrainedModel, folder: str | os.PathLike) -> None:
    """Writes a trained model as a folder that `DDPMPipeline` and `DDIMPipeline.from_pretrained` load.

    Args:
        model: with the weights to write, from `ddpm_jax.load`.
        folder: to make; it must be empty or not there.

    Raises:
        ValueError: if the folder holds something, or diffusers has not what the config asks for, which is named.
    """
    settings = model.experiment.config
    about = f"Data: {settings.data.name}. Training step {model.step}, weights `{model.weights}`."
    diffusers.write_pipeline(folder, settings.to_dict(), model.params, about=about)


def to_safetensors(model: TrainedModel, path: str | os.PathLike) -> None:
    """Writes the weights of a trained model into one file, under our own names, with the config beside them.

    `interop.safetensors_file.read_params` reads them back as the `params` of the network.
    """
    metadata = {_CONFIG: config.to_json(model.experiment.config), "step": str(model.step), "weights": model.weights}
    safetensors_file.write_params(path, jax.device_get(model.params), metadata=metadata)
