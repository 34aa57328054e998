"""Progressive coding, and means over images (Ho et al. 2020, Section 4.3)."""

from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over images, with its standard error; float64 [...]."""

    mean: np.ndarray
    standard_error: np.ndarray


def mean_over_images(values: np.ndarray) -> Mean:
    """Computes the mean of `values` [N, ...] over N >= 2 images, and its standard error: their deviation / sqrt(N)."""
    values = np.asarray(values, np.float64)
    return Mean(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values)))


def progressive_rate(*, terms: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Computes the bits/dim that progressive coding has sent by the time x_t is known (Section 4.3).

    That is L_T + L_{T-1} + ... + L_{t+1}. At t = 0 it is the paper's rate, L_1 + ... + L_T; adding the distortion L_0
    gives the whole bound.

    Args:
        terms: [N, T] in bits/dim, L_0 .. L_{T-1}.
        prior: [N] in bits/dim, L_T.

    Returns:
        [N, T] float64.
    """
    sent = np.concatenate([prior[:, None], terms[:, :0:-1]], axis=1, dtype=np.float64)  # [N, T], T-1 to 0
    return np.cumsum(sent, axis=1)[:, ::-1]


def progressive_rmse(mse: np.ndarray) -> Mean:
    """Computes the distortion of progressive coding: the root mean squared error of the x_0 predicted from x_t.

    Args:
        mse: [N, T], in units of [-1, 1].

    Returns:
        [T], on the scale 0..255; the standard error is that of `mse`, propagated through the root.
    """
    mean, error = mean_over_images(mse)
    rmse = np.sqrt(mean)
    return Mean(127.5 * rmse, 127.5 * error / (2.0 * np.maximum(rmse, 1e-12)))
