"""Weights of the official TensorFlow release (github.com/hojonathanho/diffusion) as `UNet` parameters.

The official variables have names like `model/down_0/block_1/conv1/W`. No array needs transposing: both sides use NHWC
with HWIO kernels, and matrices for 1x1 convolutions. Only `read_checkpoint` needs TensorFlow.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax.traverse_util import unflatten_dict

from ddpm_jax.interop import fitting
from ddpm_jax.runtime import foreign_files

_AVERAGE = "/ExponentialMovingAverage"
_LEAVES = {"W": "kernel", "b": "bias", "gamma": "scale", "beta": "bias"}
_BLOCKS = ("block", "attn", "downsample", "upsample")  # scopes that contain layers


def _to_ours(name: str) -> tuple[str, ...]:
    """Converts a name: `model/down_0/block_1/conv1/W` -> ('down_0_block_1', 'conv1', 'kernel')."""
    *scopes, leaf = name.removeprefix("model/").split("/")
    if leaf not in _LEAVES:
        raise ValueError(
            f"{name!r} is not a variable of the official U-Net: its last part is none of W, b, gamma, beta."
        )
    block, layer = scopes[:-1], scopes[-1:]
    if not (block and block[-1].startswith(_BLOCKS)):
        return "_".join(scopes), _LEAVES[leaf]
    return "_".join(block), *layer, _LEAVES[leaf]


def params_from_tf(variables: dict[str, np.ndarray], like: dict | None = None) -> dict:
    """Renames official variables into `UNet` parameters.

    Args:
        variables: official name (with or without `:0` and the leading `model/`) -> float32 array. Leave out the
            optimizer's slots; for the EMA weights strip their suffix `/ExponentialMovingAverage`.
        like: the `params` of a `UNet`, arrays or `jax.ShapeDtypeStruct`s (from `jax.eval_shape`), to check against.

    Returns:
        The nested `params` for `UNet.apply({"params": ...}, ...)`, float32 NumPy arrays.

    Raises:
        ValueError: naming every variable that is missing, that `like` lacks, or whose shape differs.
    """
    ours = {_to_ours(name.removesuffix(":0")): np.asarray(array, np.float32) for name, array in variables.items()}
    if like is not None:
        fitting.check_fits(ours, like, what="The variables")
    return unflatten_dict(ours)


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        variables: official name -> float32 array.
        averages: the same of their exponential moving averages; empty if there are none.
        step: of training; None if it does not say.
    """

    variables: dict[str, np.ndarray]
    averages: dict[str, np.ndarray]
    step: int | None


def is_checkpoint(path: str | os.PathLike) -> bool:
    """Tells whether a path is the prefix of a TensorFlow checkpoint's files, or a folder that names its newest one."""
    path = Path(path)
    return path.with_name(f"{path.name}.index").is_file() or (path / "checkpoint").is_file()


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Reads the variables of the U-Net from a checkpoint; the optimizer's slots are left out.

    Args:
        path: such as `model.ckpt-790000`, where `model.ckpt-790000.index` is a file; or the folder of it.

    Raises:
        ModuleNotFoundError: without TensorFlow, which the extra `prepare` installs.
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it is damaged, or holds no variable of the official U-Net.
    """
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "Reading a TensorFlow checkpoint needs TensorFlow: pip install 'ddpm_jax[prepare]'."
        ) from error
    if not is_checkpoint(path):
        raise FileNotFoundError(f"There is no TensorFlow checkpoint {os.fspath(path)}: no {os.fspath(path)}.index.")
    with foreign_files.reading(path, "is no checkpoint of the official U-Net"):
        try:
            reader = tf.train.load_checkpoint(os.fspath(path))
            stored = reader.get_variable_to_shape_map()
            of_unet = [name for name in stored if name.startswith("model/") and name.split("/")[-1] in _LEAVES]
            averaged = [name for name in of_unet if name + _AVERAGE in stored]
            if not of_unet:
                raise ValueError("it has no variable such as model/conv_in/W")
            return Checkpoint(
                {name: reader.get_tensor(name) for name in of_unet},
                {name: reader.get_tensor(name + _AVERAGE) for name in averaged},
                int(reader.get_tensor("global_step")) if "global_step" in stored else None,
            )
        except tf.errors.OpError as error:
            raise ValueError(error.message) from error
