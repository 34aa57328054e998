"""Derives the problems from the reports of all processes, in sentences that name the process and its host."""

from collections.abc import Iterator, Mapping, Sequence

from ddpm_jax.doctor.report import Report

_SHOWN = 5  # differences of code, settings and data
_MIN_FREE_BYTES = 2**31  # three checkpoints of the CIFAR-10 model take 1.7 GB


def problems(reports: Sequence[Report], *, max_skew_s: float, address: str) -> list[str]:
    """Returns what keeps the processes from training together.

    Args:
        reports: those received and that of process 0, which knows how many processes there should be.
        max_skew_s: the allowed difference between clocks.
        address: of process 0.
    """
    first = next(report for report in reports if report.process == 0)
    numbers = [report.process for report in reports]
    result = []
    if missing := [str(number) for number in range(first.num_processes) if number not in numbers]:
        which = f"Process {missing[0]} is" if len(missing) == 1 else f"Processes {', '.join(missing)} are"
        result.append(
            f"{which} missing: no connection to {address} in time. Connected: "
            f"{', '.join(report.name for report in reports)}. On the missing host, read what this command printed."
        )
    for report in reports:
        if report.process not in range(first.num_processes) or numbers.count(report.process) > 1:
            result.append(f"Number used twice, or not in 0..{first.num_processes - 1}: {report.name}.")
        result += _differences(report, first, max_skew_s=max_skew_s)
        if report.folder_problem:
            result.append(f"{report.name}: {report.folder_problem}.")
        elif report.folder and report.free_bytes < _MIN_FREE_BYTES:
            result.append(f"{report.name} has {report.free_bytes / 2**30:.2f} GiB free in {report.folder}.")
    return result


def _differences(report: Report, first: Report, *, max_skew_s: float) -> Iterator[str]:
    if report.num_processes != first.num_processes:
        yield f"{report.name} has --num_processes={report.num_processes}, {first.name} has {first.num_processes}."
    for package in sorted(report.versions.keys() | first.versions.keys()):
        version, expected = (each.versions.get(package, "none") for each in (report, first))
        if version != expected:
            yield f"{report.name} has {package} {version}, {first.name} has {expected}."
    differing = [
        name for name in sorted(report.facts.keys() | first.facts.keys())
        if report.facts.get(name) != first.facts.get(name)
    ]  # fmt: skip
    for name in differing[:_SHOWN]:
        yield (
            f"{report.name} has {name} {report.facts.get(name, 'none'):.100}, {first.name} has "
            f"{first.facts.get(name, 'none'):.100}."
        )
    if len(differing) > _SHOWN:
        yield f"{report.name} differs from {first.name} in {len(differing) - _SHOWN} more."
    if abs(report.skew_s) > max_skew_s:
        yield f"The clock of {report.name} is {report.skew_s:+.1f} s off that of {first.name}: use NTP."


def device_problems(devices: Mapping[int, int], *, num_processes: int) -> list[str]:
    """Returns which processes have another number of devices than process 0, given `{process: devices}`."""
    expected = devices.get(0, 0)
    return [
        f"Process {process} has {devices.get(process, 0)} devices, process 0 has {expected}."
        for process in range(num_processes)
        if devices.get(process, 0) != expected
    ]
