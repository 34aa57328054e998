"""Random numbers that XLA compiles fast.

Over four axes XLA takes five times as long to compile JAX's default generator for a CPU as over one. The n-th number of
an array is the same whatever its shape, so drawing in one axis and reshaping changes no bit.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def flat(draw: Draw) -> Draw:
    """Makes a function of a key and a shape that gives what `draw` gives, to the bit.

    Args:
        draw: of numbers that are independent of each other, as `jax.random.normal`.

    Returns:
        The function; under `jit`, `vmap` and `pmap`, too.
    """
    return lambda key, shape: draw(key, (math.prod(shape),)).reshape(shape)


# normal(key, shape) -> standard normal noise, float32.
normal = flat(functools.partial(jax.random.normal, dtype=jnp.float32))
