"""Random numbers that XLA compiles fast.

Over four axes XLA takes five times as long to compile JAX's default generator for a CPU as over one. The n-th number of
an array is the same whatever its shape, so drawing in one axis and reshaping changes no bit. Other devices draw in the
array's own shape: there a reshape may copy the array.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]


def flat(draw: Draw, *, axes: int = 1) -> Draw:
    """Makes a function of a key and a shape that gives what `draw` gives, to the bit.

    Args:
        draw: of numbers that are independent of each other, as `jax.random.normal`.
        axes: in how many a CPU draws: the last ones of the shape, after one of all before them. One compiles fastest;
            two draw faster where there are many numbers.

    Returns:
        The function; under `jit`, `vmap` and `pmap`, too.
    """

    def flattened(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        merged = max(len(shape) - axes + 1, 0)
        return lax.platform_dependent(
            key,
            cpu=lambda key: draw(key, (math.prod(shape[:merged]), *shape[merged:])).reshape(shape),
            default=lambda key: draw(key, shape),
        )

    return flattened


# normal(key, shape) -> standard normal noise, float32.
normal = flat(functools.partial(jax.random.normal, dtype=jnp.float32))
