"""Compiling is announced, with the time it took; XLA's own alarm about it reaches nobody."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from tqdm import tqdm

_LEVELS = {"0": "INFO", "1": "WARNING", "2": "ERROR", "3": "CRITICAL"}  # of TF_CPP_MIN_LOG_LEVEL, and JAX's names


@contextlib.contextmanager
def announcing(name: str) -> Iterator[None]:
    """Announces on standard error of process 0 that `name` is compiled, such as 'the train step', and how long it took.

    Meanwhile XLA's log is silent but for what ends the process. After two minutes XLA logs as an error, with rows of
    asterisks, that compiling is slow, and has no setting of its own that turns it off. A true error is raised anyway.
    """
    before, level = jax.config.jax_logging_level, os.environ.get("TF_CPP_MIN_LOG_LEVEL")
    jax.config.update("jax_logging_level", "CRITICAL")
    try:
        with _timing(name) if jax.process_index() == 0 else contextlib.nullcontext():
            yield
    finally:
        # Its default, NOTSET, leaves XLA's level as it is, so that is set first.
        jax.config.update("jax_logging_level", _LEVELS.get(level, "WARNING"))
        jax.config.update("jax_logging_level", before)


@contextlib.contextmanager
def _timing(name: str) -> Iterator[None]:
    with tqdm.external_write_mode(sys.stderr):  # a bar makes room, and comes back
        print(f"Compiling {name} ...", end=" ", file=sys.stderr, flush=True)
        begin = time.monotonic()
        try:
            yield
        finally:
            print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def announced(name: str, mapped: Callable) -> Callable:
    """Announces each compilation of a mapped function, whose argument number 1 is what comes in several shapes.

    Args:
        name: see `announcing`.
        mapped: `(shared, arrays, ...) -> result`, which returns when it is compiled and begun.
    """
    compiled = set()

    def call(shared: Any, arrays: Any, *rest: Any) -> Any:
        shapes = tuple(array.shape for array in jax.tree.leaves(arrays))
        if shapes in compiled:
            return mapped(shared, arrays, *rest)
        with announcing(name):
            result = mapped(shared, arrays, *rest)
        compiled.add(shapes)
        return result

    return call
