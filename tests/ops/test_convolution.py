import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from ddpm_jax.ops.convolution import conv_for_training


@settings(max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2]), st.sampled_from([1, 3, 5]))
def test_value_and_gradients_are_those_of_the_plain_convolution(height, width, stride, window):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, height, width, 3)).astype(np.float32)
    kernel = rng.standard_normal((window, window, 3, 4)).astype(np.float32)

    def plain(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)

    def ours(x, kernel):
        return conv_for_training(x, kernel, (stride, stride), "SAME")

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(convolve, x, kernel, dy):
        y, vjp = jax.vjp(convolve, x, kernel)
        return y, *vjp(dy)

    dy = rng.standard_normal(jax.eval_shape(plain, x, kernel).shape).astype(np.float32)
    results = (value_and_gradients(convolve, x, kernel, dy) for convolve in (ours, plain))
    for actual, expected, tolerance in zip(*results, (1e-5, 1e-4, 1e-4), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_what_it_does_not_do_is_refused():
    x, kernel = np.zeros((1, 4, 4, 2), np.float32), np.zeros((3, 3, 1, 2), np.float32)
    with pytest.raises(ValueError, match="plain convolutions"):
        conv_for_training(x, kernel, (1, 1), "SAME", feature_group_count=2)
