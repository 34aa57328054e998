"""Contenders timed in turns, so that a load that comes and goes meets all of them."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple


class Rounds(NamedTuple):
    """What `alternate` measured, in seconds."""

    first: dict[str, float]  # the first call, with its compilation
    seconds: dict[str, list[float]]  # of each round, per unit of work


def alternate(
    contenders: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    units: Mapping[str, int] | int = 1,
    warmups: int = 1,
) -> Rounds:
    """Times A B C A B C ...

    Args:
        contenders: each does its work and returns when all of it is done.
        repeats: rounds that count, at least 1.
        units: of work in a call, by which its seconds are divided: the same for all, or of each contender.
        warmups: rounds before that do not count, besides the first calls.
    """
    if isinstance(units, int):
        units = dict.fromkeys(contenders, units)
    first = {name: _seconds(work) for name, work in contenders.items()}
    for _ in range(warmups):
        for work in contenders.values():
            work()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, work in contenders.items():
            seconds[name].append(_seconds(work) / units[name])
    return Rounds(first, seconds)


def fastest(seconds: Mapping[str, list[float]], names: Iterable[str]) -> str:
    """The contender of these whose best round is the shortest."""
    return min(names, key=lambda name: min(seconds[name]))


def ratio(numerator: list[float], denominator: list[float]) -> float:
    """The median of the rounds' ratios: both parts of each were measured within moments of each other."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
