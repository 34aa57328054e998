"""Weights alone in a .safetensors file: arrays by name, and text beside them. No code is run in reading one."""

import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from ddpm_jax.runtime import files, foreign_files

_REFUSAL = "is no .safetensors file of weights"


def read_arrays(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads all arrays of a file, name -> array, and the texts that are stored beside them.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged or another kind of file.
    """
    with foreign_files.reading(path, _REFUSAL):
        try:
            with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise ValueError(foreign_files.cause(error)) from error


def read_params(path: str | os.PathLike) -> dict:
    """Reads what `write_params` wrote: the nested `params` for `UNet.apply({"params": ...}, ...)`, NumPy arrays.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged or another kind of file.
    """
    return unflatten_dict(read_arrays(path)[0], sep=".")


def write_params(path: str | os.PathLike, params: dict, *, metadata: dict[str, str] | None = None) -> None:
    """Writes nested parameters, each under its path joined by dots, such as `down_0_block_1.conv1.kernel`.

    Args:
        path: of the file; one that is there is replaced.
        params: nested dictionaries of arrays.
        metadata: texts to be stored beside them.
    """
    write_arrays(path, flatten_dict(params, sep="."), metadata=metadata)


def write_arrays(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], *, metadata: dict[str, str] | None = None
) -> None:
    """Writes arrays by name; arguments as those of `write_params`."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # strides would be ignored
    with files.atomically(Path(path)) as unfinished:
        safetensors.numpy.save_file(contiguous, unfinished, metadata=metadata)
