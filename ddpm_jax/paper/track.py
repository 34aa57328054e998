"""Is a CIFAR-10 run on track? Its loss and FID beside those of an independent run that ended where the paper did."""

from typing import NamedTuple

import numpy as np

# How much worse than the curve is still on track. The curve is of one run; others of 800k steps end at 3.17 to 3.25.
_LOSS_TOLERANCE, _FID_TOLERANCE = 1.05, 1.2


class Point(NamedTuple):
    """After some training steps; the FID is of 50,000 samples of the averaged weights against the training set."""

    step: int
    fid: float
    loss: float  # of the training batches, recent mean


# The README of tqch/ddpm-torch; the last line of its table is the end of the run.
CURVE = (
    Point(46_800, 9.162, 0.0295),
    Point(93_600, 5.778, 0.0293),
    Point(187_200, 4.083, 0.0291),
    Point(421_200, 3.31, 0.0284),
    Point(795_600, 3.188, 0.0277),
)


def expected(step: int) -> Point:
    """The curve at a step, straight between its points over the logarithm of the step; its end after it.

    Raises:
        ValueError: before its first point.
    """
    if step < CURVE[0].step:
        raise ValueError(f"The curve begins at step {CURVE[0].step}; step {step} is too early to tell.")
    x, xs = np.log(step), np.log([point.step for point in CURVE])
    fid = np.exp(np.interp(x, xs, np.log([point.fid for point in CURVE])))
    return Point(step, float(fid), float(np.interp(x, xs, [point.loss for point in CURVE])))


def verdict(*, step: int, loss: float | None, fid: float | None) -> str:
    """One sentence: on track, off track, or why that cannot be told.

    Args:
        step: of training.
        loss: recent mean of the training loss (L_simple); None if it is not known.
        fid: of 50,000 samples against the training set; None if it was not measured.
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
