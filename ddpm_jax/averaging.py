"""Averages of the weights over training, by name, and averages of any length after it (Karras et al. 2024).

Averages have names. 'ema_0.999' is exponential: the decay is the weight that the average so far keeps at each step.
'power_0.1' is the power function average of arXiv:2312.02696 (Section 3): the weights of step tau count in proportion
to tau^gamma, so its length is a share of the training so far, and it forgets the first steps by itself. Its number is
the relative deviation of that profile, sigma_rel.

Power function averages of two lengths, kept at several steps, span the averages of other lengths: `reconstruction` says
how to sum them.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

EXPONENTIAL, POWER = "ema", "power"
_LONGEST = 0.28  # sigma_rel of gamma = 0, the plain mean, is 0.289


def parse(name: str) -> tuple[str, float]:
    """Splits the name of an average into its kind, 'ema' or 'power', and its number.

    Raises:
        ValueError: if it is none.
    """
    kind, _, text = name.partition("_")
    number = float(text) if re.fullmatch(r"\d*\.?\d+", text, re.ASCII) else -1.0
    if (kind == EXPONENTIAL and 0.0 <= number < 1.0) or (kind == POWER and 0.0 < number <= _LONGEST):
        return kind, number
    raise ValueError(
        f"{name!r:.100} is no average: ema_DECAY has a decay in 0..1, such as ema_0.999, and power_LENGTH a relative "
        f"length in 0..{_LONGEST}, such as power_0.1"
    )


def decay_at(name: str, step: jax.Array, *, warmup: bool = False) -> jax.Array | float:
    """Computes the weight that an average keeps in its update number `step` (int32, from 0).

    Args:
        name: of the average.
        step: the number of updates before this one.
        warmup: let the decay of exponential averages rise as (1 + step) / (10 + step).
    """
    kind, number = parse(name)
    if kind == POWER:
        return (step / (1.0 + step)) ** (exponent(number) + 1.0)
    return warmed_up(number, step) if warmup else number


def warmed_up(decay: float, step: jax.Array) -> jax.Array:
    """Lets a decay rise as (1 + step) / (10 + step) up to its value: the average forgets its random start sooner."""
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def update(averages: dict[str, Any], params: Any, *, step: jax.Array, warmup: bool = False) -> dict[str, Any]:
    """Computes the averages after an update of the parameters; arguments as those of `decay_at`."""
    return {
        name: optax.incremental_update(params, average, 1.0 - decay_at(name, step, warmup=warmup))
        for name, average in averages.items()
    }


def exponent(sigma_rel: float) -> float:
    """Computes gamma of the power function average with this relative deviation.

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), the variance of the Beta(gamma + 1, 1) distribution.
    """
    inverse = sigma_rel**-2.0
    return float(max(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real))


def reconstruction(
    steps: Sequence[int], lengths: Sequence[float], *, step: int, length: float
) -> tuple[np.ndarray, float]:
    """Finds the sum of stored power function averages that is nearest to another one.

    Nearest is meant of the profiles, the weights that a sum gives to all steps of training, in least squares among
    those that sum to 1.

    Args:
        steps: N steps of training, at each of which an average was stored.
        lengths: N, sigma_rel of each.
        step: of training that the average wanted ends at.
        length: its sigma_rel.

    Returns:
        float64 [N], the coefficients, and the relative error of the profile, 0 to 1.
    """
    gammas = [exponent(each) for each in (*lengths, length)]
    ends = np.float64([*steps, step])
    (a, b), (end_a, end_b) = np.meshgrid(gammas, gammas, indexing="ij"), np.meshgrid(ends, ends, indexing="ij")
    shorter = np.minimum(end_a, end_b)
    # Of profiles p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1) on 0..t: the integral of the product of each two.
    products = (a + 1.0) * (b + 1.0) / (a + b + 1.0)
    products = products * (shorter / end_a) ** a * (shorter / end_b) ** b / np.maximum(end_a, end_b)
    stored, wanted, norm = products[:-1, :-1], products[:-1, -1], products[-1, -1]
    ones = np.ones((len(steps), 1))
    system = np.block([[stored, ones], [ones.T, np.zeros((1, 1))]])  # the last unknown is the multiplier of the sum
    coefficients = np.linalg.lstsq(system, np.append(wanted, 1.0), rcond=None)[0][:-1]
    error = norm - 2.0 * coefficients @ wanted + coefficients @ stored @ coefficients
    return coefficients, float(np.sqrt(max(0.0, error) / norm))
