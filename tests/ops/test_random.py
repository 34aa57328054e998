import jax
import numpy as np
import pytest
from jax import export

from ddpm_jax.ops import random


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("shape", [(), (2, 3, 5, 3)])
def test_noise_is_jax_s_own_to_the_bit(impl, shape):
    key = jax.random.key(7, impl=impl)
    drawn, expected = random.normal(key, shape), jax.random.normal(key, shape)
    assert (drawn.dtype, drawn.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("shape", [(), (7,), (2, 3, 5, 3)])
def test_in_two_axes_the_numbers_are_the_same_too(shape):
    key = jax.random.key(7)
    np.testing.assert_array_equal(random.flat(jax.random.bits, axes=2)(key, shape), jax.random.bits(key, shape))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_cpu_alone_draws_in_one_axis(platform):
    draw = jax.jit(lambda key: random.normal(key, (2, 3, 5, 3)))
    program = export.export(draw, platforms=[platform])(jax.eval_shape(jax.random.key, 0)).mlir_module()
    assert ("tensor<90xui32>" in program) == (platform == "cpu")
    assert ("tensor<2x3x5x3xui32>" in program) == (platform != "cpu")
