"""The loss and FID of a CIFAR-10 run, compared with those of an independent run that ended near the paper's FID."""

from typing import NamedTuple

import numpy as np

# A run is on track up to these factors above the curve. The curve is one run's; others of 800k steps end at 3.17-3.25.
_LOSS_TOLERANCE, _FID_TOLERANCE = 1.05, 1.2


class Point(NamedTuple):
    """Holds a point of the curve; FID is that of 50,000 samples with EMA weights against the training set."""

    step: int
    fid: float
    loss: float  # mean over recent training batches


# The README of tqch/ddpm-torch; the last line of its table is the end of the run.
CURVE = (
    Point(46_800, 9.162, 0.0295),
    Point(93_600, 5.778, 0.0293),
    Point(187_200, 4.083, 0.0291),
    Point(421_200, 3.31, 0.0284),
    Point(795_600, 3.188, 0.0277),
)


def expected(step: int) -> Point:
    """Interpolates the curve at a step, linearly in the logarithms of step and FID; past its end, its last point.

    Raises:
        ValueError: before its first point.
    """
    if step < CURVE[0].step:
        raise ValueError(f"The curve begins at step {CURVE[0].step}; step {step} is too early to tell.")
    x, xs = np.log(step), np.log([point.step for point in CURVE])
    fid = np.exp(np.interp(x, xs, np.log([point.fid for point in CURVE])))
    return Point(step, float(fid), float(np.interp(x, xs, [point.loss for point in CURVE])))


def verdict(*, step: int, loss: float | None, fid: float | None) -> str:
    """Says in one sentence whether a run is on track, or why that cannot be told.

    Args:
        step: training steps so far.
        loss: recent mean of the training loss (L_simple); None if unknown.
        fid: FID of 50,000 samples against the training set; None if not measured.
    """
    try:
        point = expected(step)
    except ValueError as error:
        return str(error)
    compared = [
        (name, ours, theirs, tolerance)
        for name, ours, theirs, tolerance in (
            ("loss", loss, point.loss, _LOSS_TOLERANCE),
            ("FID", fid, point.fid, _FID_TOLERANCE),
        )
        if ours is not None
    ]
    if not compared:
        return f"Step {step}: neither a loss nor an FID of 50,000 samples is known, so the curve says nothing."
    off = [name for name, ours, theirs, tolerance in compared if not ours <= theirs * tolerance]
    numbers = ", ".join(f"{name} {ours:.4g} (the curve: {theirs:.4g})" for name, ours, theirs, _ in compared)
    return f"{'Off track in ' + ' and '.join(off) if off else 'On track'} at step {step}: {numbers}."
