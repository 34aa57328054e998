"""Refuses arguments that do not fit, in one sentence: which argument, what it is, and what would be right.

Shapes are known while tracing, so a compiled function pays nothing for it. Values are looked at where they are known:
those that a compiled function is called with are not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class ArgumentError(ValueError, AssertionError):
    """An argument has a shape, type or value that it must not have."""


def check_shape(name: str, value: Any, expected: Sequence[int | str], *, what: str = "") -> None:
    """Refuses what is no array of this shape, in which letters stand for any size: `(3, "H", "W", "C")`.

    Raises:
        ArgumentError: saying `what` it is to be, besides its shape.
    """
    shape = getattr(value, "shape", None)
    fits = shape is not None and len(shape) == len(expected)
    if not fits or any(not isinstance(size, str) and size != own for size, own in zip(expected, shape, strict=True)):
        raise ArgumentError(f"{name} must be an array {_text(expected)}{what and ', ' + what}; got {_describe(value)}.")


def check_alike(**arrays: Any) -> None:
    """Refuses arrays that are not all of the first one's shape.

    Raises:
        ArgumentError: naming the first that is not.
    """
    (model, first), *others = arrays.items()
    if not hasattr(first, "shape"):
        raise ArgumentError(f"{model} must be an array; got {_describe(first)}.")
    for name, array in others:
        check_shape(name, array, first.shape, what=f"shaped like {model}")


def check_timesteps(t: Any, *, batch_size: int, num_timesteps: int, whole: bool = True) -> None:
    """Refuses timesteps that are not [B] integers, or numbers between them if not `whole`; and, where they are known,
    those that are not in [0, T - 1].

    Raises:
        ArgumentError: likewise.
    """
    what = f"one of 0..{num_timesteps - 1} for each image"
    check_shape("t", t, (batch_size,), what=what)
    if not jnp.issubdtype(t.dtype, np.integer if whole else np.number):
        raise ArgumentError(f"t must be integers, {what}; got {_describe(t)}.")
    check_range("t", t, 0, num_timesteps - 1)


def check_range(name: str, value: Any, least: int, most: int) -> None:
    """Refuses a number, or an array with one, outside least..most, where it is known.

    Raises:
        ArgumentError: naming the first that is outside.
    """
    if isinstance(value, jax.core.Tracer) or (isinstance(value, jax.Array) and not value.is_fully_addressable):
        return
    values = np.ravel(value)
    if (outside := values[(values < least) | (values > most)]).size:
        raise ArgumentError(f"{name} must be from {least} to {most}; got {outside[0]}.")


def misfits(given: Mapping[str, Sequence[int]], wanted: Mapping[str, Sequence[int]]) -> list[str]:
    """Compares arrays by their names and shapes; says which are missing, left over or of another shape than wanted."""
    problems = [f"missing: {name}" for name in wanted if name not in given]
    problems += [f"left over: {name}" for name in given if name not in wanted]
    problems += [
        f"{name} has shape {_text(shape)}, not {_text(wanted[name])}"
        for name, shape in given.items()
        if name in wanted and tuple(shape) != tuple(wanted[name])
    ]
    return problems


def listed(problems: Sequence[str], most: int) -> str:
    """Joins the first problems for a message, and says how many more there are."""
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "; ".join([*problems[:most], *more])


def _describe(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} {_text(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"


def _text(shape: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, shape))}]"
