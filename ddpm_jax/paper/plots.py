"""Curves as PNG files. Imports matplotlib, so import this only where something is plotted."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ddpm_jax.paper import published


def rate_distortion(
    path: Path, *, rate_bpd: np.ndarray, rmse: np.ndarray, title: str = "", with_paper: bool = False
) -> None:
    """Draws the three panels of Figure 5: distortion and rate by reverse steps, and distortion by rate.

    Args:
        path: where to write the PNG.
        rate_bpd: [T], the bits/dim sent by the time x_t is received.
        rmse: [T], the error of the x_0 predicted from x_t, on 0..255.
        title: what the curves are of.
        with_paper: draw Table 4 too, for images of CIFAR-10; where T is not 1000, at the same parts of it.
    """
    theirs = np.array(published.TABLE_4).T if with_paper else np.empty((3, 0))  # steps, rate, RMSE
    their_steps, their_rate, their_rmse = theirs * np.array([len(rmse) / 1000, 1.0, 1.0])[:, None]
    steps = len(rmse) - np.arange(len(rmse))  # T - t
    names = dict(steps="Reverse process steps (T - t)", rmse="Distortion (RMSE)", rate="Rate (bits/dim)")
    panels = (
        (steps, rmse, their_steps, their_rmse, names["steps"], names["rmse"]),
        (steps, rate_bpd, their_steps, their_rate, names["steps"], names["rate"]),
        (rate_bpd, rmse, their_rate, their_rmse, names["rate"], names["rmse"]),
    )
    figure = Figure(figsize=(10.5, 3.2), layout="constrained")
    figure.suptitle(title)
    for axes, (x, y, their_x, their_y, x_name, y_name) in zip(figure.subplots(1, 3), panels, strict=True):
        axes.plot(x, y, label="ours")
        if with_paper:
            axes.plot(their_x, their_y, "k.", label="paper, CIFAR-10 (Table 4)")
            axes.legend(fontsize="small")
        axes.set(xlabel=x_name, ylabel=y_name, xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def score_by_length(path: Path, points: dict[float, tuple[float, float | None]], *, name: str, title: str) -> None:
    """Draws a score by the length of the average of the weights (Karras et al. 2024, Figure 5).

    Args:
        path: where to write the PNG.
        points: the score, and its error if it has one, by length.
        name: of the score.
        title: what it is of.
    """
    lengths = sorted(points)
    values, errors = zip(*(points[length] for length in lengths), strict=True)
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots()
    axes.errorbar(lengths, values, yerr=[error or 0.0 for error in errors], marker="o", markersize=3)
    axes.set(xlabel="length of the average (relative deviation)", ylabel=name)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def quality_by_step(path: Path, rows: list[dict[str, float]], *, kind: str, num_samples: int, title: str = "") -> None:
    """Draws the two panels of Figure 10: Inception score and Frechet distance of the predicted x_0, by reverse steps.

    Args:
        path: where to write the PNG.
        rows: one for each point, with `reverse_steps`, `distance`, `inception_score` and its `deviation`.
        kind: the extractor's name, 'inception...' or 'classifier...'.
        num_samples: samples that each point was measured with.
        title: what the samples are of.
    """
    steps, distance, score, deviation = (
        np.array([row[name] for row in rows]) for name in ("reverse_steps", "distance", "inception_score", "deviation")
    )
    inception = kind.startswith("inception")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    left.errorbar(steps, score, yerr=deviation, marker="o", markersize=3, label="mean ± deviation of splits")
    left.legend(fontsize="small")
    left.set(ylabel="Inception score" if inception else "is_classifier")
    right.plot(steps, distance, marker="o", markersize=3)
    right.set(ylabel=f"FID@{num_samples}" if inception else f"fd_classifier@{num_samples}", yscale="log")
    for axes in (left, right):
        axes.set(xlabel="Reverse process steps (T - t)", xlim=(0, None))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
