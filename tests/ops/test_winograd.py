import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export, lax
from scipy.signal import correlate2d

from ddpm_jax.ops import convolution, winograd

NHWC = ("NHWC", "HWIO", "NHWC")


def correlated(x, kernel):
    """Convolves by scipy, in float64: x [B, H, W, in], kernel [3, 3, in, out]."""
    x, kernel = x.astype(np.float64), kernel.astype(np.float64)
    channels = range(x.shape[-1])
    return np.array(
        [
            [sum(correlate2d(image[..., i], kernel[..., i, o], mode="same") for i in channels)
             for o in range(kernel.shape[-1])]
            for image in x
        ]
    ).transpose(0, 2, 3, 1)  # fmt: skip


def relative_error(actual, expected):
    return np.abs(np.asarray(actual, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("m", [2, 4])
@settings(max_examples=5)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1000))
def test_it_is_the_convolution(m, high, wide, b, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((b, high * m, wide * m, 2)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 2, 3)).astype(np.float32)
    actual = jax.jit(winograd.conv, static_argnames="m")(x, kernel, m=m)
    np.testing.assert_allclose(actual, correlated(x, kernel), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("m", "bound"), [(2, 2e-6), (4, 2e-5)])
def test_its_error_at_the_width_of_the_network_is_small(m, bound):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 16, 16, 256)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 256, 2)).astype(np.float32)
    assert relative_error(winograd.conv(x, kernel, m=m), correlated(x, kernel)) < bound


@pytest.mark.parametrize("m", [2, 4])
def test_the_gradient_of_the_kernel_is_that_of_the_convolution(m):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((2, 2 * m, m, c)).astype(np.float32) for c in (3, 5))
    kernel = np.zeros((3, 3, 3, 5), np.float32)
    _, vjp = jax.vjp(lambda k: lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=NHWC), kernel)
    np.testing.assert_allclose(winograd.kernel_gradient(x, dy, m=m), vjp(dy)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "m"), [(8, 2), (16, 4)])
def test_a_wide_convolution_goes_through_it_with_its_gradients(size, m):
    shape, kernel_shape = (6, size, size, 64), (3, 3, 64, 65)
    assert winograd.tile(shape, kernel_shape) == m
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal(shape, np.float32), rng.standard_normal(kernel_shape, np.float32)
    dy = rng.standard_normal((*shape[:3], 65), np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(convolve):
        y, vjp = jax.vjp(convolve, x, kernel)
        return y, *vjp(dy)

    expected = run(lambda x, kernel: lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC))
    trained = run(lambda x, kernel: convolution.conv_for_training(x, kernel, (1, 1), "SAME"))
    for actual, wanted in zip(trained, expected, strict=True):
        assert relative_error(actual, wanted) < 2e-5
    assert relative_error(convolution.conv(x, kernel, (1, 1), "SAME"), trained[0]) < 2e-5
    assert np.abs(np.asarray(trained[0]) - expected[0]).max() > 0  # it is another way to compute


@pytest.mark.parametrize(
    ("images", "kernel"),
    [
        ((8, 32, 32, 3), (3, 3, 3, 128)),  # too few channels to pay for the transforms
        ((8, 32, 32, 128), (1, 1, 128, 128)),
        ((8, 15, 16, 128), (3, 3, 128, 128)),  # no whole tiles
        ((8, 4, 4, 256), (3, 3, 256, 256)),
        ((1, 8, 8, 256), (3, 3, 256, 256)),  # too few tiles for matrix products of a good size
    ],
)
def test_others_are_left_plain(images, kernel):
    assert winograd.tile(images, kernel) is None


@pytest.mark.parametrize("argument", ["x", "kernel"])
def test_it_is_linear_in_either_argument_and_can_be_transposed(argument):
    rng = np.random.default_rng(0)
    x, kernel = (rng.standard_normal(shape, np.float32) for shape in ((6, 16, 16, 32), (3, 3, 32, 33)))
    dy = rng.standard_normal((6, 16, 16, 33), np.float32)
    assert winograd.tile(x.shape, kernel.shape) == 4

    def transposed(convolve):
        apply, linear_in = (lambda x: convolve(x, kernel), x) if argument == "x" else (lambda k: convolve(x, k), kernel)
        return jax.jit(jax.linear_transpose(apply, linear_in))(dy)[0]

    plain = transposed(lambda x, kernel: lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC))
    assert relative_error(transposed(lambda x, kernel: convolution.conv(x, kernel, (1, 1), "SAME")), plain) < 2e-5


def test_of_a_batch_whose_size_is_not_known_yet_the_plain_one_is_exported():
    (b,) = export.symbolic_shape("b")
    kernel = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    for convolve in (convolution.conv, convolution.conv_for_training):
        run = jax.jit(lambda x, convolve=convolve: convolve(x, kernel, (1, 1), "SAME"))
        exported = export.export(run)(jax.ShapeDtypeStruct((b, 16, 16, 32), np.float32))
        for size in (1, 6):  # with 6 images, and known, it would be Winograd's
            x = np.random.default_rng(size).standard_normal((size, 16, 16, 32), np.float32)
            np.testing.assert_allclose(exported.call(x), run(x), rtol=0, atol=1e-3)
