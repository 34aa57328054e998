"""The convolution of the U-Net: XLA's own on accelerators; on the CPU, in float32, in the forms that are fast there.

Large 3x3 convolutions and their gradients go through `winograd`. The gradients of the others are convolutions, too, and
XLA's CPU backend has a fast routine for one form alone: NHWC images, HWIO kernels. It brings what differentiation makes
into that form outside loops only: inside a `lax.scan` a train step runs some 30 times slower. Written in that form from
the start, gradients cost the same in both places.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ddpm_jax.ops import winograd

_NHWC = ("NHWC", "HWIO", "NHWC")


def conv(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, *, precision: Any = None, **options: Any
) -> jax.Array:
    """Convolves NHWC images with an HWIO kernel, as `lax.conv_general_dilated` does, to float rounding.

    It is to be given to linen as `flax.linen.Conv.conv_general_dilated`. The CPU's precision is always the highest.

    Raises:
        ValueError: while tracing, if linen's `options` ask for dilation or groups.
    """
    _check(options)
    return _fastest(x, kernel, tuple(strides), padding, precision)


def conv_for_training(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, *, precision: Any = None, **options: Any
) -> jax.Array:
    """Convolves as `conv` does, with gradients that are as fast; differentiable in reverse mode alone.

    Raises:
        ValueError: as `conv` does.
    """
    _check(options)
    return _trained(x, kernel, tuple(strides), padding, precision)


def _check(options: dict[str, Any]) -> None:
    plain = dict(lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1)
    if any(options.get(name, value) != value for name, value in plain.items()):
        raise ValueError(f"conv is for plain convolutions; got {options}.")


def _plain(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, precision: Any) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=_NHWC, precision=precision)


def _fastest(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, precision: Any) -> jax.Array:
    m = _tile(x, kernel, strides, padding)
    plain = functools.partial(_plain, strides=strides, padding=padding, precision=precision)
    on_cpu = plain if m is None else functools.partial(winograd.conv, m=m)
    return lax.platform_dependent(x, kernel, cpu=on_cpu, default=plain)


def _tile(x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str) -> int | None:
    if strides != (1, 1) or padding != "SAME" or x.dtype != jnp.float32:
        return None
    return winograd.tile(x.shape, kernel.shape)


def _forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, int], padding: str, precision: Any
) -> tuple[jax.Array, tuple]:
    return _fastest(x, kernel, strides, padding, precision), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: str, precision: Any, saved: tuple, dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def automatic(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        plain = functools.partial(_plain, strides=strides, padding=padding, precision=precision)
        return jax.vjp(plain, x, kernel)[1](dy)

    def canonical(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        window, size = kernel.shape[:2], x.shape[1:3]
        pads = lax.padtype_to_pads(size, window, strides, padding)
        # The image's gradient: dy, spread by the stride, convolved with the kernel turned by 180 degrees.
        before = [k - 1 - low for k, (low, _) in zip(window, pads, strict=True)]
        spread = [s * (n - 1) + 1 for s, n in zip(strides, dy.shape[1:3], strict=True)]
        after = [n + k - 1 - m - b for n, k, m, b in zip(size, window, spread, before, strict=True)]
        dx = lax.conv_general_dilated(
            dy,
            _turned(kernel),
            (1, 1),
            list(zip(before, after, strict=True)),
            lhs_dilation=strides,
            dimension_numbers=_NHWC,
        )
        # The kernel's gradient: channels of the image as the batch, dy as the kernel.
        as_images, as_kernel = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(dy, (1, 2, 0, 3))
        dkernel = lax.conv_general_dilated(
            as_images, as_kernel, (1, 1), pads, rhs_dilation=strides, dimension_numbers=_NHWC
        )  # [in, h, w, out], with strides perhaps a row and a column too many
        return dx, jnp.transpose(dkernel[:, : window[0], : window[1]], (1, 2, 0, 3))

    def by_winograd(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return winograd.conv(dy, _turned(kernel), m=m), winograd.kernel_gradient(x, dy, m=m)

    m = _tile(saved[0], saved[1], strides, padding)
    on_cpu = canonical if m is None else by_winograd
    return lax.platform_dependent(*saved, dy, cpu=on_cpu, default=automatic)


def _turned(kernel: jax.Array) -> jax.Array:
    """Turns a kernel by 180 degrees and swaps inputs and outputs: [h, w, in, out] -> [h, w, out, in]."""
    return jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))


_trained = jax.custom_vjp(_fastest, nondiff_argnums=(2, 3, 4))
_trained.defvjp(_forward, _backward)
