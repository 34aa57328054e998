"""All benchmarks that this machine can run, one after the other, each in a process of its own.

python -m benchmarks [--quick] [--results=FOLDER]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import command, hardware, report

_NAMES = ("train_step", "chain", "digits", "input_pipeline", "cold_start", "checkpoints", "memory")
_ON_GPU_ALONE = ("train_step_256",)
_ON_CPU_ALONE = ("devices",)  # of which a CPU can have several


def main() -> int:
    """Returns how many of them failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_flags(parser)
    arguments = parser.parse_args()
    flags = ["--quick"] * arguments.quick + [f"--results={arguments.results}"] * (arguments.results is not None)
    hardware.share_gpu()  # this process stays on it while the others run
    failed = 0
    for name in (*_NAMES, *(_ON_GPU_ALONE if hardware.on_gpu() else _ON_CPU_ALONE)):
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *flags], cwd=Path(__file__).parents[1])
        failed += done.returncode != 0
    folder = arguments.results or (None if arguments.quick else command.RESULTS)
    if folder is not None:
        print(f"All tables: {report.write_tables(folder)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
