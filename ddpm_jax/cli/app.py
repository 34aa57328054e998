"""What the command lines share: the flags of several processes, and how an error is said."""

import os
import sys
import traceback
from collections.abc import Callable

import jax
from absl import app, flags, logging

from ddpm_jax import parallel
from ddpm_jax.runtime.signals import Stopped


def define_flags() -> None:
    """Defines the flags that say which processes make up a run; they can also be set by the environment."""
    flags.DEFINE_enum(
        "distributed", "auto", ["auto", "on", "off"],
        "Several processes: auto: where a flag or the environment (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, "
        "JAX_PROCESS_ID, SLURM, Open MPI, GKE TPU) says so; on: also where JAX must ask the cluster (Cloud TPU).",
    )  # fmt: skip
    flags.DEFINE_string(
        "coordinator_address", os.environ.get("JAX_COORDINATOR_ADDRESS"), "host:port where process 0 listens."
    )
    flags.DEFINE_integer("num_processes", os.environ.get("JAX_NUM_PROCESSES"), "Of the run.", lower_bound=1)
    flags.DEFINE_integer("process_id", os.environ.get("JAX_PROCESS_ID"), "Of this one, from 0.", lower_bound=0)
    flags.DEFINE_integer("start_timeout_s", 300, "How long the processes wait for each other.", lower_bound=1)
    flags.DEFINE_integer(
        "heartbeat_timeout_s", 60, "A process not heard of for so long is taken for dead.", lower_bound=1
    )


def run(work: Callable[[], int]) -> None:
    """Parses the flags, joins the other processes, and ends the program with what `work` returns.

    A ValueError or OSError is said in one sentence, with exit code 1; work that was stopped ends with the code that
    tells why. Process 0 alone writes to standard output.
    """

    def main(argv: list[str]) -> int:
        if len(argv) > 1:
            raise app.UsageError(f"Unknown argument {argv[1]!r}; flags are --NAME=VALUE.")
        logging.set_verbosity(logging.WARNING)
        try:
            _join()
            return work()
        except Stopped as stopped:
            print(stopped)
            return stopped.exit_code
        except (ValueError, OSError) as error:
            message = str(error)
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            message = (
                "Lost another process; start all again, and the run continues from its last checkpoint "
                f"({str(error).splitlines()[0][:300]})"
            )
        except Exception:  # a mistake of ours: the others must not wait for this process
            if jax.process_count() == 1:
                raise
            traceback.print_exc()
            parallel.leave(1)
        print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
        parallel.leave(1)
        return 1

    app.run(main, flags_parser=_parse)


def _join() -> None:
    values = flags.FLAGS
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


def _parse(argv: list[str]) -> list[str]:
    """As absl does, but an unknown setting is one sentence too."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:  # of ml_collections, with the nearest name
        name = os.path.basename(argv[0])
        raise SystemExit(f"{name}: unknown setting {' '.join(str(error.args[0]).split())}") from None
