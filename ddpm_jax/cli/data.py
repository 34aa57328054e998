"""Downloads a TFDS data set and writes it to disk, where the other commands read it.

    ddpm-data prepare NAME [--data_dir=DIR]

NAME is TFDS's name, such as cifar10 or lsun/bedroom. The command, also run by python -m ddpm_jax.data, needs
TensorFlow: pip install 'ddpm_jax[prepare]'.
"""

import sys

from absl import flags

from ddpm_jax.data.prepare import prepare
from ddpm_jax.runtime.foreign_files import cause


def main() -> None:
    """Prepares the data set that the arguments name; exits with 1 if that fails and with 2 if they are wrong."""
    values = _define_flags()
    try:
        arguments = values(sys.argv)[1:]
        if not values.help and (len(arguments) != 2 or arguments[0] != "prepare"):
            raise flags.Error("the arguments must be: prepare NAME [--data_dir=DIR].")
    except flags.Error as error:
        print(f"ddpm-data: {error}", file=sys.stderr)
        sys.exit(2)
    if values.help:
        print(__doc__ + values.get_help(include_special_flags=False))
        return
    name = arguments[1]
    try:
        print(f"{name} is ready in {prepare(name, data_dir=values.data_dir)}")
    except Exception as error:  # TFDS raises nearly anything: no network, a checksum, files to be fetched by hand, ...
        sys.exit(f"Cannot prepare {name!r}: {cause(error)}")  # with code 1


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_bool("help", False, "Print this text and exit.", short_name="h", flag_values=values)
    flags.DEFINE_string("data_dir", "", "The root of prepared data sets; empty for TFDS's own.", flag_values=values)
    return values
