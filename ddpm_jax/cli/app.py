"""What the commands share: flags, those of several processes among them, and how errors are reported."""

import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from ddpm_jax import parallel
from ddpm_jax.cli import experiments
from ddpm_jax.runtime.foreign_files import cause
from ddpm_jax.runtime.signals import Stopped, keep_output


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
    logging.use_absl_handler()  # in place of one that Orbax's import has made: each warning would be printed twice
    keep_output()
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
            if watch and not (parallel.is_of_a_collective(error) and watch.wait_for_loss()):
                watch.stop()
            if not isinstance(error, (ValueError, OSError, ArithmeticError)):  # a mistake of ours
                if jax.process_count() == 1:
                    raise
                traceback.print_exc()
            else:
                print(f"{command_name()}: {error}", file=sys.stderr)
            if watch:
                watch.wait_for_others()
            parallel.leave(1)  # the others must not wait for this process
            return 1
        if watch:
            watch.finish()
        return code

    app.run(main, flags_parser=lambda argv: parse(argv, doc=doc, positional=positional))


def command_name() -> str:
    """Returns the name of the command as it was typed."""
    name = os.path.basename(sys.argv[0])
    spec = sys.modules["__main__"].__spec__
    return f"python -m {spec.name.removesuffix('.__main__')}" if name == "__main__.py" and spec else name


def parse(argv: list[str], *, doc: str, positional: str = "") -> list[str]:
    """Parses the flags; an unknown one or a wrong value is reported in one sentence, with exit code 1.

    Args:
        argv: the command line.
        doc: the help of the command, printed with its flags for --help.
        positional: how the help calls what may stand beside flags; '': nothing may.

    Returns:
        The arguments that are no flags, the name of the program first.
    """
    takes_config = "config" in flags.FLAGS
    if any(argument in ("--help", "-h", "--helpfull", "-help") for argument in argv[1:]):
        print(f"{doc.strip()}\n\nFlags:\n{_help()}" + (f"\n\n{experiments.help_text()}" if takes_config else ""))
        raise SystemExit(0)
    try:
        rest = flags.FLAGS([argv[0], *(experiments.resolve(argv[1:]) if takes_config else argv[1:])])
        if len(rest) > 1 and not positional:
            raise flags.Error(f"Unknown argument {rest[1]!r}; flags are --NAME=VALUE.")
    except flags.UnrecognizedFlagError as error:
        raise SystemExit(f"{command_name()}: {_unknown_flag(error.flagname, takes_config)} See --help.") from None
    except flags.Error as error:
        raise SystemExit(f"{command_name()}: {_sentence(str(error))} See --help.") from None
    except (AttributeError, KeyError) as error:  # of ml_collections
        raise SystemExit(f"{command_name()}: {cause(error)}. See --help.") from None
    return rest


def _unknown_flag(name: str, takes_config: bool) -> str:
    """Says what there is in place of a flag that there is not."""
    own = [flag.name for flag in _own_flags()]
    if setting := takes_config and experiments.suggest(name):
        return f"Unknown command line flag {name!r}. {setting}"
    near = difflib.get_close_matches(name, own, n=1, cutoff=0.8)
    return f"Unknown command line flag {name!r}. " + (
        f"Did you mean --{near[0]}?" if near else f"There are {', '.join(f'--{flag}' for flag in own)}."
    )


def _sentence(message: str) -> str:
    """Ends what absl says with a stop, and rewrites what it says of a flag that must be given and is not."""
    missing = re.fullmatch(r"flag --(\w+)=None: .* must have a value other than None\.", message)
    if missing is None:
        return message if message.endswith((".", "!", "?")) else f"{message}."
    names = f": {', '.join(experiments.names())}, or a file with get_config" if missing[1] == "config" else ""
    return f"--{missing[1]}=... must be given{names}."


def _own_flags() -> list[flags.Flag]:
    modules = flags.FLAGS.flags_by_module_dict().items()
    own = [
        flag for name, of_module in modules if name.startswith("ddpm_jax") or name == "__main__" for flag in of_module
    ]
    return sorted(own, key=lambda flag: flag.name)


def _help() -> str:
    return "\n".join(
        f"  --{flag.name}{'' if flag.boolean else '=' + (flag.metavar if hasattr(flag, 'metavar') else '...')}\n"
        f"      {flag.help}" + ("" if flag.default is None else f" (default: {flag.default_as_str})")
        for flag in _own_flags()
    )


def folder(path: str, flag: str = "--workdir") -> Path:
    """Returns the path of a folder to write to, which may not be there yet.

    Raises:
        ValueError: if it, or a folder that it is to lie in, is a file.
    """
    if file := _file_among(Path(path), *Path(path).parents):
        raise ValueError(f"{flag}={path} must be a folder, and {file} is a file.")
    return Path(path)


def file_to_write(path: str | None, suffix: str) -> Path | None:
    """Returns the path that --out gives, if it does; refuses one that cannot become such a file.

    Raises:
        ValueError: if its ending promises another kind of file, it is a folder, or it is to lie in a file.
    """
    if not path:
        return None
    if Path(path).suffix != suffix:
        raise ValueError(f"--out={path} must end in {suffix}, as that is what is written.")
    if Path(path).is_dir():
        raise ValueError(f"--out={path} must be a file, and is a folder.")
    if file := _file_among(*Path(path).parents):
        raise ValueError(f"--out={path} must lie in a folder, and {file} is a file.")
    return Path(path)


def _file_among(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists() and not path.is_dir()), None)


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
    try:
        parallel.check_initialized()  # starts the devices
    except (AssertionError, RuntimeError) as error:
        asked = jax.config.jax_platforms
        why = f"JAX_PLATFORMS={asked} asks for one that is not here. " if asked else ""
        print(
            f"{command_name()}: JAX finds no device to run on ({cause(error)}). {why}Set JAX_PLATFORMS=cpu, or install "
            "JAX for this machine.", file=sys.stderr, flush=True,
        )  # fmt: skip
        os._exit(1)  # at once: to leave in order, JAX must be asked what it could not tell
    if not parallel.is_primary():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    return parallel.watch_peers(values.coordinator_address)
