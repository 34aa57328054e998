"""Checks whether these hosts can train together, and names the host that is missing or differs.

    ddpm-doctor --coordinator_address=HOST:PORT --num_processes=N --process_id=I [--workdir=DIR]
                [--config=NAME_OR_FILE [--config.data.data_dir=... ...]]

With --config and the settings that train.py will be given, it also compares these and the data. Run it, or
python -m ddpm_jax.doctor, on all hosts at the same time. A single machine needs no flags.
Exit code 0: healthy; 1: not healthy; 2: wrong flags.
"""

import functools
import logging
import os
import sys

from absl import flags

from ddpm_jax import data, doctor


def main() -> None:
    """Checks the hosts that the flags describe, prints the problems, and exits with 0, 1 or 2 as said above."""
    try:
        values = _define_flags()
        arguments = values([sys.argv[0], *_resolved(sys.argv[1:])])[1:]
        if values.help:
            print(__doc__ + values.get_help(include_special_flags=False))
            return
        if arguments:
            raise flags.Error(f"unknown argument {arguments[0]!r}; flags are --NAME=VALUE.")
        processes = _processes(values)
    except flags.Error as error:
        print(f"ddpm-doctor: {error}", file=sys.stderr)
        sys.exit(2)
    log = logging.getLogger("ddpm_jax.doctor")
    log.setLevel(logging.INFO)
    log.addHandler(logging.StreamHandler(sys.stdout))
    limits = dict(timeout_s=values.timeout_s, max_skew_s=values.max_skew_s)
    facts, own_problems = {}, []
    try:
        facts = _facts(values) if values.config else {}
    except (ValueError, OSError) as error:
        own_problems = [str(error)]
    problems = own_problems + doctor.check_hosts(**processes, workdir=values.workdir, facts=facts, **limits)
    for problem in problems:
        print(f"WRONG: {problem}")
    print("Not healthy." if problems else "Healthy.", flush=True)
    if problems:
        os._exit(1)  # at once: if JAX hangs, its threads would keep the process alive


def _define_flags() -> flags.FlagValues:
    """Defines the flags, with defaults from the variables that train.py reads, and from SLURM's for the numbers."""
    from ml_collections import config_flags  # whose import defines flags

    values = flags.FlagValues()
    boolean, text, integer, seconds = (
        functools.partial(define, flag_values=values)
        for define in (flags.DEFINE_bool, flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float)
    )
    address = _variable("JAX_COORDINATOR_ADDRESS")
    num_processes = _variable("JAX_NUM_PROCESSES", "SLURM_NTASKS")
    process_id = _variable("JAX_PROCESS_ID", "SLURM_PROCID")
    boolean("help", False, "Print this text and exit.", short_name="h")
    text("coordinator_address", address, "HOST:PORT of process 0; $JAX_COORDINATOR_ADDRESS.")
    integer("num_processes", num_processes, "How many there are; $JAX_NUM_PROCESSES, $SLURM_NTASKS.", lower_bound=1)
    integer("process_id", process_id, "Which this is, from 0; $JAX_PROCESS_ID, $SLURM_PROCID.")
    config_flags.DEFINE_config_file("config", help_string="The experiment to be trained.", flag_values=values)
    text("workdir", "", "A folder: checks that all processes can write to it and share it.")
    seconds("timeout_s", doctor.TIMEOUT_S, "The time for all to connect, and again for JAX to start.", lower_bound=0.0)
    seconds("max_skew_s", doctor.MAX_SKEW_S, "The allowed difference between clocks.", lower_bound=0.0)
    return values


def _resolved(arguments: list[str]) -> list[str]:
    """Replaces the name of an experiment by the path of its file; raises flags.Error as `experiments.resolve` does."""
    if not any(argument.lstrip("-").startswith("config") for argument in arguments):
        return arguments
    from ddpm_jax.cli import experiments  # likewise

    return experiments.resolve(arguments)


def _facts(values: flags.FlagValues) -> dict[str, str]:
    """Returns what train.py compares: the settings, and a few facts of the data.

    Raises:
        ValueError: if they are wrong.
        FileNotFoundError: if there is no data.
    """
    from ddpm_jax.cli import experiments  # with JAX, for which --help need not wait
    from ddpm_jax.runs import config

    config.check(values.config)
    own, fields = experiments.own_of(values), values.config.data
    if own.open_data:
        of_data = own.open_data(fields.split).fingerprint()
    else:
        of_data = data.fingerprint(fields.name, split=fields.split, data_dir=fields.data_dir, holdout=fields.holdout)
    facts = config.facts(values.config) | own.facts() | of_data
    return {name: str(value) for name, value in facts.items()}


def _variable(*names: str) -> str | None:
    """Returns the first of the environment variables that is set and not empty."""
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


def _processes(values: flags.FlagValues) -> dict[str, str | int]:
    """Returns the arguments for `check_hosts`, or raises flags.Error if the flags contradict each other."""
    address, number, count = values.coordinator_address, values.process_id, values.num_processes
    if not address and count in (None, 1):
        return {}
    if not address:
        raise flags.Error("--num_processes needs --coordinator_address and --process_id.")
    if count is None or number is None:
        raise flags.Error("--coordinator_address needs --num_processes and --process_id.")
    if not 0 <= number < count:
        raise flags.Error(f"--process_id={number} must be in 0..{count - 1}.")
    return dict(coordinator_address=address, num_processes=count, process_id=number)
