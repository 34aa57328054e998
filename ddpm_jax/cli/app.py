"""What the commands share: flags of several processes, the experiments by name, and how errors are reported."""

import os
import sys
import traceback
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jax
from absl import app, flags, logging

from ddpm_jax import parallel
from ddpm_jax.runtime.signals import Stopped


def run(define_flags: Callable[[], None], work: Callable[..., int], *, doc: str, positional: str = "") -> None:
    """Parses the flags, joins the other processes, and ends the program with what `work(values)` returns.

    A ValueError or OSError is reported in one sentence, with exit code 1; work that was stopped ends with the code
    that tells why. Process 0 alone writes to standard output.

    Args:
        define_flags: defines the flags of the command.
        work: is given their values, and the arguments beside them where there may be any; returns the exit code.
        doc: the help of the command.
        positional: how the help calls arguments beside flags; '': there may be none.
    """
    define_flags()
    _define_process_flags()

    def main(argv: list[str]) -> int:
        logging.set_verbosity(logging.WARNING)
        watch = None
        try:
            watch = _join(flags.FLAGS)
            code = work(flags.FLAGS, argv[1:]) if positional else work(flags.FLAGS)
        except Stopped as stopped:
            print(stopped)
            code = stopped.exit_code
        except Exception as error:
            if watch and not (_is_of_a_collective(error) and watch.wait_for_loss()):
                watch.stop()
            if not isinstance(error, (ValueError, OSError, ArithmeticError)):  # a mistake of ours
                if jax.process_count() == 1:
                    raise
                traceback.print_exc()
            else:
                print(f"{command_name()}: {error}", file=sys.stderr)
            parallel.leave(1)  # the others must not wait for this process
            return 1
        if watch:
            watch.finish()
        return code

    app.run(main, flags_parser=lambda argv: parse(argv, doc=doc, positional=positional))


def _is_of_a_collective(error: Exception) -> bool:
    """Tells whether an error may come from a lost peer rather than from this process."""
    return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def command_name() -> str:
    """Returns the name of the command as it was typed."""
    return os.path.basename(sys.argv[0])


def parse(argv: list[str], *, doc: str, positional: str = "") -> list[str]:
    """Parses the flags; an unknown one or a wrong value is reported in one sentence, with exit code 1.

    Args:
        argv: the command line.
        doc: the help of the command, printed with its flags for --help.
        positional: how the help calls what may stand beside flags; '': nothing may.

    Returns:
        The arguments that are no flags, the name of the program first.
    """
    if any(argument in ("--help", "-h", "--helpfull", "-help") for argument in argv[1:]):
        print(f"{doc.strip()}\n\nFlags:\n{_help()}")
        raise SystemExit(0)
    try:
        rest = flags.FLAGS([argv[0], *map(_with_path_of_experiment, argv[1:])])
        if len(rest) > 1 and not positional:
            raise flags.Error(f"Unknown argument {rest[1]!r}; flags are --NAME=VALUE.")
    except flags.Error as error:
        raise SystemExit(f"{command_name()}: {error} See --help.") from None
    except (AttributeError, KeyError) as error:  # of ml_collections, with the nearest name
        message = " ".join(str(error.args[0]).split())
        raise SystemExit(f"{command_name()}: unknown setting {message}") from None
    return rest


def _help() -> str:
    by_module = flags.FLAGS.flags_by_module_dict()
    own = [flag for module, its in by_module.items() if module.startswith(("ddpm_jax", "__main__")) for flag in its]
    return "\n".join(
        f"  --{flag.name}{'' if flag.boolean else '=' + (flag.metavar if hasattr(flag, 'metavar') else '...')}\n"
        f"      {flag.help}" + ("" if flag.default is None else f" (default: {flag.default_as_str})")
        for flag in sorted(own, key=lambda flag: flag.name)
    )


def experiment_names() -> list[str]:
    """Lists the experiments that come with the package."""
    files = (entry.name for entry in resources.files("ddpm_jax.configs").iterdir())
    return sorted(name.removesuffix(".py") for name in files if name.endswith(".py") and not name.startswith("_"))


def _with_path_of_experiment(argument: str) -> str:
    """Replaces the name of an experiment by the path of its file: --config=cifar10."""
    flag, equals, name = argument.partition("=")
    if flag not in ("--config", "-config") or not equals or name.endswith(".py") or Path(name).is_file():
        return argument
    if name not in experiment_names():
        raise flags.Error(
            f"--config={name} is neither a file nor an experiment; there are {', '.join(experiment_names())}."
        )
    return f"{flag}={resources.files('ddpm_jax.configs') / f'{name}.py'}"


def _define_process_flags() -> None:
    """Defines the flags that say which processes make up a run; they can also be set by the environment."""
    flags.DEFINE_enum(
        "distributed", "auto", ["auto", "on", "off"],
        "Several processes: auto: where a flag or the environment (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, "
        "JAX_PROCESS_ID, SLURM, Open MPI, GKE TPU) says so; on: also where JAX must ask the cluster (Cloud TPU).",
    )  # fmt: skip
    flags.DEFINE_string(
        "coordinator_address", os.environ.get("JAX_COORDINATOR_ADDRESS"), "host:port where process 0 listens."
    )
    flags.DEFINE_integer(
        "num_processes", os.environ.get("JAX_NUM_PROCESSES"), "The number of processes of the run.", lower_bound=1
    )
    flags.DEFINE_integer(
        "process_id", os.environ.get("JAX_PROCESS_ID"), "The number of this process, from 0.", lower_bound=0
    )
    flags.DEFINE_integer("start_timeout_s", 300, "How long the processes wait for each other.", lower_bound=1)
    flags.DEFINE_integer(
        "heartbeat_timeout_s", 60, "A process not heard of for so long is taken for dead.", lower_bound=1
    )


def _join(values: flags.FlagValues) -> parallel.PeerWatch | None:
    parallel.initialize(
        mode=values.distributed,
        coordinator_address=values.coordinator_address,
        num_processes=values.num_processes,
        process_id=values.process_id,
        timeout_s=values.start_timeout_s,
        heartbeat_timeout_s=values.heartbeat_timeout_s,
    )
    parallel.check_initialized()
    if not parallel.is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    return parallel.watch_peers(values.coordinator_address)
