"""Writes a TFDS data set to disk as array_record. The only part of the library that needs TensorFlow."""

import importlib.util
import os

from ddpm_jax.data.tfds import open_builder, wrong_format_message


def prepare(name: str, *, data_dir: str = "") -> str:
    """Downloads a data set and writes it to disk, unless that has been done, and returns its folder.

    Args:
        name: TFDS's name, such as 'cifar10' or 'lsun/bedroom'.
        data_dir: the root of prepared data sets; '' for TFDS's default.

    Raises:
        ValueError: if TFDS does not know the name, or the data set was prepared in another format.
        ModuleNotFoundError: if TensorFlow is not installed.
    """
    data_dir = os.path.expanduser(data_dir)
    builder = open_builder(name, data_dir=data_dir)
    if builder.info.splits:
        try:
            builder.as_data_source()
        except NotImplementedError as error:
            raise ValueError(wrong_format_message(name, builder)) from error
        return str(builder.data_dir)
    # TFDS 4.9.10 needs the second for every data set of its own, but does not require it when installed.
    missing = [module for module in ("tensorflow", "importlib_resources") if importlib.util.find_spec(module) is None]
    if missing:
        raise ModuleNotFoundError(f"this needs {' and '.join(missing)}: pip install 'ddpm_jax[prepare]'")
    builder = open_builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_dir)
