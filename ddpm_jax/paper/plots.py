"""Curves as PNG files. Imports matplotlib, so import this only where something is plotted."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def rate_distortion(path: Path, *, rate_bpd: np.ndarray, rmse: np.ndarray) -> None:
    """Draws the three panels of Figure 5: distortion and rate by reverse steps, and distortion by rate.

    Args:
        path: where to write the PNG.
        rate_bpd: [T], the bits/dim sent by the time x_t is received.
        rmse: [T], the error of the x_0 predicted from x_t, on 0..255.
    """
    steps = len(rmse) - np.arange(len(rmse))  # T - t
    names = dict(steps="Reverse process steps (T - t)", rmse="Distortion (RMSE)", rate="Rate (bits/dim)")
    panels = (
        (steps, rmse, names["steps"], names["rmse"]),
        (steps, rate_bpd, names["steps"], names["rate"]),
        (rate_bpd, rmse, names["rate"], names["rmse"]),
    )
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    for axes, (x, y, x_name, y_name) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.plot(x, y)
        axes.set(xlabel=x_name, ylabel=y_name, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def quality_by_step(path: Path, rows: list[dict[str, float]], *, kind: str, num_samples: int) -> None:
    """Draws the two panels of Figure 10: Inception score and Frechet distance of the predicted x_0, by reverse steps.

    Args:
        path: where to write the PNG.
        rows: one for each point, with `reverse_steps`, `distance`, `inception_score` and its `deviation`.
        kind: the extractor's name, 'inception...' or 'classifier...'.
        num_samples: samples that each point was measured with.
    """
    steps, distance, score, deviation = (
        np.array([row[name] for row in rows]) for name in ("reverse_steps", "distance", "inception_score", "deviation")
    )
    inception = kind.startswith("inception")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.errorbar(steps, score, yerr=deviation, marker="o", markersize=3)
    left.set(ylabel="Inception score" if inception else "is_classifier")
    right.plot(steps, distance, marker="o", markersize=3)
    right.set(ylabel=f"FID@{num_samples}" if inception else f"fd_classifier@{num_samples}", yscale="log")
    for axes in (left, right):
        axes.set(xlabel="Reverse process steps (T - t)", xlim=(0, None))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
