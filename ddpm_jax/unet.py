"""The U-Net of Ho et al. 2020 (Appendix B), in Flax linen.

The architecture of the official release (diffusion_tf/models/unet.py), so that its weights fit: residual blocks with
group norm, the timestep added between the two convolutions of each, single-head self-attention at chosen resolutions
and always in the middle. Submodules carry the official names, joined by `_` (`interop.tf1` maps the rest). What the
official network does not have, a condition such as the class, is projected and added to the embedded timestep.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.arguments import check_shape
from ddpm_jax.ops import convolution, random

GROUPS = 32  # of every group norm


def _init(scale: float = 1.0) -> nn.initializers.Initializer:
    """Makes `nn.initializers.variance_scaling(scale, "fan_avg", "uniform")`, to the bit, but compiled faster."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        fan_avg = math.prod(shape[:-2]) * (shape[-2] + shape[-1]) / 2
        uniform = random.flat(functools.partial(jax.random.uniform, dtype=dtype, minval=-1))
        return uniform(key, shape) * jnp.sqrt(3 * jnp.array(scale / fan_avg, dtype))

    return init


# Weights of the last layer of each branch start near, but not at, zero: official scale 1e-10.
_NEAR_ZERO = _init(1e-10)

_dense = functools.partial(nn.Dense, kernel_init=_init())

# SAME: a stride of 2 pads an even size after, not before (TensorFlow's rule).
_conv3x3 = functools.partial(nn.Conv, kernel_size=(3, 3), padding="SAME", kernel_init=_init())


def timestep_embedding(t: jax.Array, dim: int) -> jax.Array:
    """Embeds the timestep in sines and cosines (Vaswani et al. 2017), as the official `get_timestep_embedding`.

    Args:
        t: [B] timesteps.
        dim: width, at least 4; an odd width ends in a column of zeros.

    Returns:
        [B, dim] float32: sines, then cosines, at frequencies from 1 down to 1/10000 in geometric steps.

    Raises:
        ValueError: if it is narrower than 4.
    """
    check_shape("t", t, "B")
    half = dim // 2
    if half < 2:
        raise ValueError(f"A timestep embedding needs dim >= 4; got {dim}.")
    frequencies = jnp.asarray(np.exp(-math.log(10000.0) * np.arange(half) / (half - 1)), jnp.float32)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None, :]  # [B, half]
    return jnp.pad(jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1), ((0, 0), (0, dim % 2)))


def class_condition(labels: jax.Array, num_classes: int) -> jax.Array:
    """Makes the condition of the network from classes: one-hot, so that its projection is a table of embeddings.

    Args:
        labels: [B] int32 in [0, num_classes); any other, such as -1, is no class.
        num_classes: how many there are.

    Returns:
        [B, num_classes] float32; zeros, the null condition, for no class.
    """
    check_shape("labels", labels, "B", what="one an image")
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)


class GroupNorm(nn.Module):
    """Group norm (Wu and He 2018, arXiv:1803.08494) of 32 groups; [B, H, W, C] -> [B, H, W, C] of `dtype`.

    Equal to `flax.linen.GroupNorm` with contrib's epsilon. The statistics are float32 whatever the dtype, of x in
    float32 in two passes over it, as contrib's. It sums over the pixels first, whole vectors of channels at a time, and
    then over the channels of each group. On a CPU that is several times as fast as flax's, which takes a sixth of a
    small network's time.
    """

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [B, H, W, C], C a multiple of 32."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)

        def mean(values: jax.Array) -> jax.Array:
            """Averages over the group that each channel is in, [B, H, W, C] -> [B, 1, 1, C]."""
            of_channels = values.mean((1, 2), keepdims=True)
            of_groups = of_channels.reshape(-1, 1, 1, GROUPS, channels // GROUPS).mean(-1)
            return jnp.repeat(of_groups, channels // GROUPS, axis=-1)

        values = x.astype(jnp.float32)
        average = mean(values)
        centred = values - average
        # In bfloat16 one pass, which is less to read from memory; it rounds by less than x itself does.
        one_pass = x.dtype == jnp.bfloat16
        variance = jnp.maximum(mean(values**2) - average**2, 0.0) if one_pass else mean(centred**2)
        factor = jax.lax.rsqrt(variance + 1e-6) * scale[None, None, None, :]
        return (centred * factor + bias[None, None, None, :]).astype(self.dtype)


class Dropout(nn.Module):
    """`flax.linen.Dropout`, but for masks that are drawn in float32 where JAX_ENABLE_X64 would have them in float64."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """With `train`, sets a share `rate` of x to 0 and scales the rest; needs an rng named 'dropout'."""
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        draw = random.flat(lambda key, shape: jax.random.bernoulli(key, jnp.float32(keep), shape), axes=2)
        kept = draw(self.make_rng("dropout"), x.shape)
        return jnp.where(kept, x / keep, 0.0)


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with the timestep added between them; [B, H, W, in] -> [B, H, W, out_ch]."""

    out_ch: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    conv: Callable = convolution.conv

    @nn.compact
    def __call__(self, x: jax.Array, temb: jax.Array, train: bool = False) -> jax.Array:
        """Takes x [B, H, W, in] and temb [B, any]; with `train`, dropout needs an rng named 'dropout'."""
        conv = functools.partial(_conv3x3, self.out_ch, dtype=self.dtype, conv_general_dilated=self.conv)
        h = nn.swish(GroupNorm(self.dtype, name="norm1")(x))
        h = conv(name="conv1")(h)
        h += _dense(self.out_ch, dtype=self.dtype, name="temb_proj")(nn.swish(temb))[:, None, None, :]
        h = nn.swish(GroupNorm(self.dtype, name="norm2")(h))
        h = Dropout(self.dropout)(h, train)
        h = conv(kernel_init=_NEAR_ZERO, name="conv2")(h)
        if x.shape[-1] != self.out_ch:
            x = _dense(self.out_ch, dtype=self.dtype, name="nin_shortcut")(x)
        return x + h


class AttnBlock(nn.Module):
    """Single-head self-attention over all pixels; [B, H, W, C] -> [B, H, W, C]."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds to each pixel what it attends to."""
        b, h, w, c = x.shape
        normed = GroupNorm(self.dtype, name="norm")(x)
        q, k, v = (
            _dense(c, dtype=self.dtype, name=name)(normed).reshape(b, h * w, 1, c) for name in ("q", "k", "v")
        )  # [B, H*W, 1 head, C]
        attended = jax.nn.dot_product_attention(q, k, v).reshape(b, h, w, c)  # softmax in float32
        return x + _dense(c, dtype=self.dtype, kernel_init=_NEAR_ZERO, name="proj_out")(attended)


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2; [B, H, W, C] -> [B, H/2, W/2, C]."""

    dtype: Any = jnp.float32
    conv: Callable = convolution.conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Halves height and width, which must be even."""
        conv = _conv3x3(
            x.shape[-1], strides=(2, 2), dtype=self.dtype, conv_general_dilated=self.conv, name="conv"
        )  # fmt: skip
        return conv(x)


class Upsample(nn.Module):
    """Each pixel twice in both directions, then a 3x3 convolution; [B, H, W, C] -> [B, 2H, 2W, C]."""

    dtype: Any = jnp.float32
    conv: Callable = convolution.conv

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Doubles height and width."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return _conv3x3(x.shape[-1], dtype=self.dtype, conv_general_dilated=self.conv, name="conv")(x)


class UNet(nn.Module):
    """`denoise_fn` with parameters: (x [B, H, W, C], t [B]) -> [B, H, W, out_ch] float32.

    Initialized with a condition it has parameters for it, `cond_proj`; without one they do not exist.

    Attributes:
        out_ch: channels of the output: those of the image, or twice as many with learned variances.
        ch: channels at full resolution, a multiple of 32.
        ch_mult: channels at each resolution, as multiples of `ch`; the image halves between one and the next.
        num_res_blocks: residual blocks a resolution on the way down (one more on the way up).
        attn_resolutions: heights in pixels at which each residual block is followed by self-attention.
        dropout: rate between the convolutions of a residual block, in [0, 1).
        dtype: of the computation, float32 or bfloat16; parameters, norm statistics and softmax are float32.
        remat: recompute each block in the backward pass instead of keeping its activations.
        conv: `(x, kernel, strides, padding, **options) -> y`, the 3x3 convolution, as linen's `conv_general_dilated`.
            For training `convolution.conv_for_training`: `model.clone(conv=...)` has the same parameters.
    """

    out_ch: int
    ch: int
    ch_mult: tuple[int, ...]
    num_res_blocks: int
    attn_resolutions: tuple[int, ...]
    dropout: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False
    conv: Callable = convolution.conv

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, cond: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Predicts from x_t [B, H, W, C], t [B] int32 and a condition; with `train`, dropout needs an rng 'dropout'.

        The condition, [B, D], is a vector for each image, such as `class_condition`. Its projection has no bias, so
        zeros say the same as None: nothing is known.

        Raises:
            ValueError: while tracing, if H or W is not divisible by the down-sampling or a width by 32.
        """
        check_shape("x", x, "BHWC")
        check_shape("t", t, x.shape[:1], what="one for each image")
        self._check_sizes(*x.shape[1:3])
        resnet = nn.remat(ResnetBlock, static_argnums=(3,)) if self.remat else ResnetBlock
        attn = nn.remat(AttnBlock) if self.remat else AttnBlock
        conv = functools.partial(_conv3x3, dtype=self.dtype, conv_general_dilated=self.conv)

        def residual(h: jax.Array, name: str, mult: int) -> jax.Array:
            return resnet(self.ch * mult, self.dropout, self.dtype, self.conv, name=name)(h, temb, train)

        def attend(h: jax.Array, name: str) -> jax.Array:
            return attn(self.dtype, name=name)(h) if h.shape[1] in self.attn_resolutions else h

        temb = timestep_embedding(t, self.ch)
        temb = _dense(4 * self.ch, dtype=self.dtype, name="temb_dense0")(temb)
        temb = _dense(4 * self.ch, dtype=self.dtype, name="temb_dense1")(nn.swish(temb))  # [B, 4 ch]
        if cond is not None:
            check_shape("cond", cond, (x.shape[0], "D"))
            temb += _dense(4 * self.ch, use_bias=False, dtype=self.dtype, name="cond_proj")(cond)

        # In float32 whatever the dtype, on TPUs, too: at t = 0 bfloat16 would round 0.75 % of the variance of eps away.
        h = conv(self.ch, dtype=jnp.float32, precision="highest", name="conv_in")(x).astype(self.dtype)
        skips = [h]
        for level, mult in enumerate(self.ch_mult):
            for i in range(self.num_res_blocks):
                h = residual(h, f"down_{level}_block_{i}", mult)
                h = attend(h, f"down_{level}_attn_{i}")
                skips.append(h)
            if level + 1 < len(self.ch_mult):
                h = Downsample(self.dtype, self.conv, name=f"down_{level}_downsample")(h)
                skips.append(h)

        h = residual(h, "mid_block_1", self.ch_mult[-1])
        h = attn(self.dtype, name="mid_attn_1")(h)  # whatever attn_resolutions says
        h = residual(h, "mid_block_2", self.ch_mult[-1])

        for level, mult in reversed(tuple(enumerate(self.ch_mult))):
            for i in range(self.num_res_blocks + 1):
                h = residual(jnp.concatenate([h, skips.pop()], axis=-1), f"up_{level}_block_{i}", mult)
                h = attend(h, f"up_{level}_attn_{i}")
            if level > 0:
                h = Upsample(self.dtype, self.conv, name=f"up_{level}_upsample")(h)

        h = nn.swish(GroupNorm(self.dtype, name="norm_out")(h))
        h = conv(self.out_ch, kernel_init=_NEAR_ZERO, name="conv_out")(h)
        return h.astype(jnp.float32)

    def _check_sizes(self, height: int, width: int) -> None:
        for mult in self.ch_mult:
            if self.ch * mult % GROUPS:
                raise ValueError(
                    f"model.ch={self.ch} times {mult} of ch_mult={self.ch_mult} is not a multiple of {GROUPS}, the "
                    f"number of norm groups; try ch={max(1, round(self.ch / GROUPS)) * GROUPS}."
                )
        factor = 2 ** (len(self.ch_mult) - 1)
        if height % factor or width % factor:
            fitting = tuple(max(1, round(size / factor)) * factor for size in (height, width))
            raise ValueError(
                f"Images of {height}x{width} cannot be halved {len(self.ch_mult) - 1} times (ch_mult={self.ch_mult}); "
                f"the nearest size that can is {fitting[0]}x{fitting[1]}: set data.image_size={fitting}."
            )
