"""From the facts of all processes to what is wrong, in sentences that name the process and its host."""

import dataclasses
from collections.abc import Mapping, Sequence

from ddpm_jax.doctor.facts import Facts

_MIN_FREE_BYTES = 2**31  # three checkpoints of the CIFAR-10 model take 1.7 GB


@dataclasses.dataclass(frozen=True)
class Examined:
    """The facts of a process, and what process 0 found out when it met it."""

    facts: Facts
    skew_s: float  # its clock minus that of process 0
    folder_problem: str  # '': none


def problems(examined: Sequence[Examined], *, num_processes: int, max_skew_s: float, meeting_place: str) -> list[str]:
    """What keeps the processes from training together.

    Args:
        examined: those that came; process 0 is one of them.
        num_processes: how many there should be.
        max_skew_s: by which clocks may differ.
        meeting_place: for the sentence about those who did not come.
    """
    found = []
    came = [each.facts.process for each in examined]
    missing = [str(process) for process in range(num_processes) if process not in came]
    if missing:
        hosts = ", ".join(each.facts.name for each in examined)
        which = f"Process {missing[0]} is" if len(missing) == 1 else f"Processes {', '.join(missing)} are"
        found.append(
            f"{which} missing: not heard of at {meeting_place} in time. These came: {hosts}. On the missing host, look "
            "at what the same command printed."
        )
    first = next(each.facts for each in examined if each.facts.process == 0)
    for each in examined:
        facts = each.facts
        if not 0 <= facts.process < num_processes or came.count(facts.process) > 1:
            found.append(f"Two processes claim one number, or it is not in 0..{num_processes - 1}: {facts.name}.")
        if facts.num_processes != num_processes:
            found.append(f"{facts.name} was told of {facts.num_processes} processes, process 0 of {num_processes}.")
        found += _different(facts, first)
        if abs(each.skew_s) > max_skew_s:
            found.append(f"The clock of {facts.name} is {each.skew_s:+.1f} s off that of {first.name}: use NTP.")
        if each.folder_problem:
            found.append(f"{facts.name}: {each.folder_problem}.")
        elif facts.folder and facts.free_bytes < _MIN_FREE_BYTES:
            found.append(f"{facts.name} has {facts.free_bytes / 2**30:.2f} GiB free in {facts.folder}.")
    return found


def _different(facts: Facts, first: Facts) -> list[str]:
    names = sorted(facts.versions.keys() | first.versions.keys())
    return [
        f"{facts.name} has {name} {facts.versions.get(name, 'none')}, {first.name} has "
        f"{first.versions.get(name, 'none')}."
        for name in names
        if facts.versions.get(name) != first.versions.get(name)
    ]


def device_problems(devices: Mapping[int, int], *, num_processes: int) -> list[str]:
    """Which processes have another number of devices than process 0, of `{process: devices}`."""
    expected = devices.get(0, 0)
    return [
        f"Process {process} has {devices.get(process, 0)} devices, process 0 has {expected}."
        for process in range(num_processes)
        if devices.get(process, 0) != expected
    ]
