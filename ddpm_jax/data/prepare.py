"""The command that writes a TFDS data set to disk as array_record. The only thing here that needs TensorFlow."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence

from ddpm_jax.data.tfds import one_line, open_builder, wrong_format


def prepare(name: str, *, data_dir: str) -> str:
    """Downloads and writes a data set, unless that has been done, and returns the folder it lies in.

    Raises:
        ValueError: if TFDS does not know the name, or it was prepared in another format.
        ModuleNotFoundError: if TensorFlow is not installed.
    """
    builder = open_builder(name, data_dir=data_dir)
    if builder.info.splits:
        try:
            builder.as_data_source()
        except NotImplementedError as error:
            raise ValueError(wrong_format(name, builder)) from error
        return str(builder.data_dir)
    # TFDS 4.9.10 needs the second for every data set of its own, and does not ask for it when installed.
    missing = [name for name in ("tensorflow", "importlib_resources") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(f"it takes {' and '.join(missing)}: pip install 'ddpm_jax[prepare]'")
    builder = open_builder(name, data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_dir)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m ddpm_jax.data prepare NAME [--data_dir=DIR]`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ddpm_jax.data", description=__doc__)
    command = parser.add_subparsers(required=True).add_parser("prepare", help="write a TFDS data set to disk")
    command.add_argument("name", help="as TFDS names it, such as cifar10 or lsun/bedroom")
    command.add_argument("--data_dir", default="", help="the root of prepared data sets (default: that of TFDS)")
    args = parser.parse_args(argv)
    try:
        print(f"{args.name} is ready in {prepare(args.name, data_dir=os.path.expanduser(args.data_dir))}")
    except Exception as error:  # TFDS raises nearly anything: no network, a checksum, files to be fetched by hand, ...
        print(f"Cannot prepare {args.name!r}: {one_line(error)}.", file=sys.stderr)
        return 1
    return 0
