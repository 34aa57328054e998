import jax
import numpy as np
import pytest

from ddpm_jax.ops import random


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (2, 3, 5, 3)])
def test_noise_is_jax_s_own_to_the_bit(impl, shape):
    key = jax.random.key(7, impl=impl)
    drawn, expected = random.normal(key, shape), jax.random.normal(key, shape)
    assert (drawn.dtype, drawn.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(drawn, expected)
