"""Says whether these hosts can train together, or names the host that is missing or differs.

Run it on all hosts at the same time: python -m ddpm_jax.doctor --coordinator_address=HOST:PORT --num_processes=N
--process_id=I [--workdir=DIR]. On one machine alone it needs no flags. Exit code 0: healthy; 1: not.
"""

import argparse
import collections
import os
import sys
import threading
from collections.abc import Mapping, Sequence

from ddpm_jax.doctor import diagnosis, facts, meeting
from ddpm_jax.doctor.diagnosis import Examined
from ddpm_jax.doctor.facts import Facts


def parse_arguments(argv: Sequence[str] | None, environment: Mapping[str, str]) -> argparse.Namespace:
    """The flags, with defaults from the variables that train.py reads, and from SLURM's for the two numbers."""

    def variable(*names: str) -> str | None:
        return next((environment[name] for name in names if environment.get(name)), None)

    parser = argparse.ArgumentParser(
        prog="python -m ddpm_jax.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--coordinator_address", default=variable("JAX_COORDINATOR_ADDRESS"), metavar="HOST:PORT",
        help="of process 0; $JAX_COORDINATOR_ADDRESS",
    )  # fmt: skip
    parser.add_argument(
        "--num_processes", type=int, default=variable("JAX_NUM_PROCESSES", "SLURM_NTASKS"),
        help="$JAX_NUM_PROCESSES, $SLURM_NTASKS",
    )  # fmt: skip
    parser.add_argument(
        "--process_id", type=int, default=variable("JAX_PROCESS_ID", "SLURM_PROCID"),
        help="from 0; $JAX_PROCESS_ID, $SLURM_PROCID",
    )  # fmt: skip
    parser.add_argument("--workdir", default="", help="also see whether it is one folder, shared and writable")
    parser.add_argument("--timeout_s", type=float, default=60.0, help="for all to come together (default: 60)")
    parser.add_argument("--max_skew_s", type=float, default=2.0, help="by which clocks may differ (default: 2)")
    args = parser.parse_args(argv)
    if args.coordinator_address is None:
        if args.num_processes not in (None, 1):
            parser.error("--num_processes needs --coordinator_address and --process_id.")
        args.num_processes, args.process_id = 1, 0
    elif args.num_processes is None or args.process_id is None:
        parser.error("--coordinator_address needs --num_processes and --process_id.")
    if not 0 <= args.process_id < args.num_processes:
        parser.error(f"--process_id={args.process_id} must be in 0..{args.num_processes - 1}.")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = parse_arguments(argv, os.environ)
    own = facts.gather(process=args.process_id, num_processes=args.num_processes, workdir=args.workdir)
    _print_own(own)
    try:
        problems = _meet(own, args)
    except meeting.MeetingError as error:
        problems = [str(error)]
    if not problems:
        problems = _try_jax(own, address=args.coordinator_address, timeout_s=args.timeout_s)
    for problem in problems:
        print(f"WRONG: {problem}")
    print("Not healthy." if problems else "Healthy.", flush=True)
    return 1 if problems else 0


def _print_own(own: Facts) -> None:
    print(f"Process {own.process} of {own.num_processes} on {own.host}")
    print("  " + ", ".join(f"{name} {version}" for name, version in own.versions.items()))
    if own.folder:
        print(f"  {own.folder}: {own.free_bytes / 2**30:.1f} GiB free", flush=True)


def _meet(own: Facts, args: argparse.Namespace) -> list[str]:
    timeout_s = args.timeout_s
    if own.num_processes == 1:
        problem = facts.write_marker(own.folder, f".doctor-{os.getpid()}") if own.folder else ""
        alone = Examined(own, skew_s=0.0, folder_problem=problem)
        return diagnosis.problems([alone], num_processes=1, max_skew_s=args.max_skew_s, meeting_place=own.host)
    if own.process:
        print(f"  looking for process 0 at {args.coordinator_address}, for {timeout_s:g} s", flush=True)
        return meeting.attend(own, address=args.coordinator_address, timeout_s=timeout_s)
    print(f"  waiting for the others at {args.coordinator_address}, for {timeout_s:g} s", flush=True)
    came, problems = meeting.hold(
        own, address=args.coordinator_address, timeout_s=timeout_s, max_skew_s=args.max_skew_s
    )
    for each in came:
        print(f"  came: {each.facts.name}, clock {each.skew_s:+.2f} s", flush=True)
    return problems


def _try_jax(own: Facts, *, address: str | None, timeout_s: float) -> list[str]:
    """Starts JAX's runtime on all processes, counts their devices and lets all meet at a barrier of the devices."""
    stage = "importing JAX"

    def give_up() -> None:  # JAX would wait for longer, or abort with a stack trace of its C++ code
        print(f"WRONG: {own.name} hangs in {stage}, for more than {timeout_s:g} s.\nNot healthy.", flush=True)
        os._exit(1)

    watchdog = threading.Timer(timeout_s, give_up)
    watchdog.daemon = True
    watchdog.start()
    try:
        import jax
        from jax.experimental import multihost_utils

        if own.num_processes > 1:
            stage = "jax.distributed.initialize"
            jax.distributed.initialize(address, own.num_processes, own.process)
        stage = "starting the devices"
        devices = jax.devices()
        kinds = collections.Counter(device.device_kind for device in devices)
        described = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        print(f"  {described} in all, {jax.local_device_count()} of them here", flush=True)
        stage = "a sum over all devices"
        multihost_utils.sync_global_devices("doctor")
        counts = collections.Counter(device.process_index for device in devices)
        if own.num_processes > 1:
            stage = "jax.distributed.shutdown"
            jax.distributed.shutdown()
        return diagnosis.device_problems(counts, num_processes=own.num_processes)
    except (RuntimeError, ValueError, OSError) as error:
        return [f"{own.name}: {stage} failed: {str(error).splitlines()[0]}."]
    finally:
        watchdog.cancel()


if __name__ == "__main__":
    sys.exit(main())
