"""The command line that all benchmarks share."""

import argparse
import datetime
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import hardware, report

RESULTS = Path(__file__).parent / "results"


def run(measure: Callable[..., report.Report]) -> None:
    """Parses the flags, measures, prints the tables, and keeps the JSON.

    Args:
        measure: `measure(quick=...)` of a benchmark's module, whose name and docstring are those of the command.
    """
    module = inspect.getmodule(measure)
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    arguments = parser.parse_args()
    hardware.share_gpu()
    before = os.getloadavg()[0]
    results = measure(quick=arguments.quick)
    environment = hardware.describe() | {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "load_average": [before, os.getloadavg()[0]],  # of the last minute, before and after
        "quick": arguments.quick,
    }
    kept = report.to_json(results, environment)
    print(report.markdown(kept), flush=True)
    folder = arguments.results or (None if arguments.quick else RESULTS)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{Path(module.__file__).stem}_{hardware.slug()}.json"
        path.write_text(json.dumps(kept, indent=1) + "\n")
        print(f"Kept in {path}")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of one benchmark and of all."""
    parser.add_argument("--quick", action="store_true", help="a tiny network and few rounds: to see that it runs")
    parser.add_argument(
        "--results", type=Path, help="where to keep the JSON; default: benchmarks/results, or with --quick nowhere"
    )
