"""The Inception network of 2015-12-05, whose features define FID, KID and the Inception score.

Szegedy et al. 2015 (arXiv:1512.00567) as TensorFlow published it. It differs from torchvision's: average pools leave
the padding out of the mean, the last block pools by maximum, and there are 1008 logits. The logits lack their bias, as
in the code of the Inception score's authors (Salimans et al. 2016). The reference in PyTorch is torch-fidelity; layers
have the names of the weights that it and pytorch-fid publish.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import arguments
from ddpm_jax.interop.torch_file import read_state_dict
from ddpm_jax.metrics.features import Extractor, Features, fingerprint
from ddpm_jax.runtime import foreign_files
from ddpm_jax.runtime.download import fetch, sha256

SIZE = 299  # pixels
NUM_CLASSES = 1008

# TensorFlow's weights as pytorch-fid converted them. torch-fidelity publishes the same bytes.
_FILE = "pt_inception-2015-12-05-6726825d.pth"
_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{_FILE}"
_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"

_NORM = ("weight", "bias", "running_mean", "running_var")  # arrays of a batch norm
_EPSILON = 1e-3


class _Conv(NamedTuple):
    """Holds the shape of a convolution with ReLU; padding keeps the size, but there is none with stride 2."""

    name: str
    features: int
    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)


def _average(x: jax.Array) -> jax.Array:
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


def _maximum(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (1, 1), "SAME")


def _halve(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2), "VALID")


# A block consists of branches, whose outputs are concatenated. A branch is a chain of convolutions and pools; a tuple
# in it is a fork, parallel convolutions whose outputs are concatenated.
_Step = _Conv | Callable[[jax.Array], jax.Array] | tuple[_Conv, ...]
_Block = tuple[tuple[_Step, ...], ...]


def _block_a(pool: int) -> _Block:
    return (
        (_Conv("branch1x1", 64),),
        (_Conv("branch5x5_1", 48), _Conv("branch5x5_2", 64, (5, 5))),
        (_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, (3, 3)), _Conv("branch3x3dbl_3", 96, (3, 3))),
        (_average, _Conv("branch_pool", pool)),
    )


_BLOCK_B: _Block = (
    (_Conv("branch3x3", 384, (3, 3), (2, 2)),),
    (_Conv("branch3x3dbl_1", 64), _Conv("branch3x3dbl_2", 96, (3, 3)), _Conv("branch3x3dbl_3", 96, (3, 3), (2, 2))),
    (_halve,),
)


def _block_c(width: int) -> _Block:
    return (
        (_Conv("branch1x1", 192),),
        (_Conv("branch7x7_1", width), _Conv("branch7x7_2", width, (1, 7)), _Conv("branch7x7_3", 192, (7, 1))),
        (
            _Conv("branch7x7dbl_1", width),
            _Conv("branch7x7dbl_2", width, (7, 1)),
            _Conv("branch7x7dbl_3", width, (1, 7)),
            _Conv("branch7x7dbl_4", width, (7, 1)),
            _Conv("branch7x7dbl_5", 192, (1, 7)),
        ),
        (_average, _Conv("branch_pool", 192)),
    )


_BLOCK_D: _Block = (
    (_Conv("branch3x3_1", 192), _Conv("branch3x3_2", 320, (3, 3), (2, 2))),
    (
        _Conv("branch7x7x3_1", 192),
        _Conv("branch7x7x3_2", 192, (1, 7)),
        _Conv("branch7x7x3_3", 192, (7, 1)),
        _Conv("branch7x7x3_4", 192, (3, 3), (2, 2)),
    ),
    (_halve,),
)


def _block_e(pool: Callable[[jax.Array], jax.Array]) -> _Block:
    return (
        (_Conv("branch1x1", 320),),
        (_Conv("branch3x3_1", 384), (_Conv("branch3x3_2a", 384, (1, 3)), _Conv("branch3x3_2b", 384, (3, 1)))),
        (
            _Conv("branch3x3dbl_1", 448),
            _Conv("branch3x3dbl_2", 384, (3, 3)),
            (_Conv("branch3x3dbl_3a", 384, (1, 3)), _Conv("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, _Conv("branch_pool", 192)),
    )


_BLOCKS: dict[str, _Block] = {
    "Mixed_5b": _block_a(32),  # [B, 35, 35, 256]
    "Mixed_5c": _block_a(64),  # [B, 35, 35, 288]
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _BLOCK_B,  # [B, 17, 17, 768]
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _BLOCK_D,  # [B, 8, 8, 1280]
    "Mixed_7b": _block_e(_average),  # [B, 8, 8, 2048]
    "Mixed_7c": _block_e(_maximum),
}


def resize(images: jax.Array) -> jax.Array:
    """Resizes bilinearly as `tf.image.resize_bilinear` of TensorFlow 1: output pixel i samples i * (size / 299).

    pytorch-fid's `resize_input` aligns the centres of the pixels instead; FIDs of the two differ.

    Args:
        images: [B, H, W, C] float32, of any size.

    Returns:
        [B, 299, 299, C] float32, in the units of `images`.
    """
    for axis in (2, 1):
        size = images.shape[axis]
        position = np.arange(SIZE, dtype=np.float32) * np.float32(size / SIZE)
        low = position.astype(np.int32)
        high = np.minimum(low + 1, size - 1)
        weight = np.expand_dims(position - low, tuple({0, 1, 2, 3} - {axis}))
        low, high = (jnp.take(images, index, axis=axis) for index in (low, high))
        images = low + (high - low) * weight
    return images


class Inception(nn.Module):
    """Maps [B, 299, 299, 3] float32 in [-1, 1) to `Features`: 2048 of the last pool, 1008 logits without bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> Features:
        """Runs the stem, the blocks and the classifier, all in float32."""

        def conv(x: jax.Array, spec: _Conv, name: str, padding: str | None = None) -> jax.Array:
            padding = padding or ("SAME" if spec.strides == (1, 1) else "VALID")
            layer = nn.Conv(spec.features, spec.kernel, spec.strides, padding, precision="highest", name=name)
            return nn.relu(layer(x))

        def run(x: jax.Array, step: _Step, block: str) -> jax.Array:
            if isinstance(step, _Conv):
                return conv(x, step, f"{block}.{step.name}")
            if isinstance(step, tuple):
                return jnp.concatenate([run(x, fork, block) for fork in step], axis=-1)
            return step(x)

        x = conv(x, _Conv("", 32, (3, 3), (2, 2)), "Conv2d_1a_3x3")  # [B, 149, 149, 32]
        x = conv(x, _Conv("", 32, (3, 3)), "Conv2d_2a_3x3", "VALID")
        x = _halve(conv(x, _Conv("", 64, (3, 3)), "Conv2d_2b_3x3"))  # [B, 73, 73, 64]
        x = conv(x, _Conv("", 80), "Conv2d_3b_1x1")
        x = _halve(conv(x, _Conv("", 192, (3, 3)), "Conv2d_4a_3x3", "VALID"))  # [B, 35, 35, 192]
        for block, branches in _BLOCKS.items():
            outputs = []
            for branch in branches:
                y = x
                for step in branch:
                    y = run(y, step, block)
                outputs.append(y)
            x = jnp.concatenate(outputs, axis=-1)
        pool = x.mean(axis=(1, 2))
        return Features(pool, nn.Dense(NUM_CLASSES, use_bias=False, precision="highest", name="fc")(pool))


def apply(params: Any, pixels: jax.Array) -> Features:
    """Resizes pixels, uint8 [B, H, W, C] with 1 (grey) or 3 channels, and applies `Inception`.

    Raises:
        ValueError: while tracing, for any other type or number of channels.
    """
    chex.assert_rank(pixels, 4)
    if pixels.dtype != jnp.uint8 or pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"Inception takes uint8 images of 1 or 3 channels; got {pixels.dtype} of shape {pixels.shape}."
        )
    pixels = jnp.broadcast_to(pixels, (*pixels.shape[:-1], 3))  # grey as red, green and blue
    return Inception().apply({"params": params}, (resize(pixels.astype(jnp.float32)) - 128.0) / 128.0)


def params_from_state_dict(weights: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Converts weights under the names of pytorch-fid into the parameters of `Inception`.

    Each batch norm is folded into the convolution before it, in float64. The bias of the logits is left out.

    Args:
        weights: name -> array: for each layer `.conv.weight` [out, in, h, w] and `.bn.weight`, `.bn.bias`,
            `.bn.running_mean`, `.bn.running_var` [out]; `fc.weight` [1008, 2048] and `fc.bias`.

    Raises:
        ValueError: naming weights that are missing, left over, of another shape or not finite.
    """
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    like = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    expected = {"fc.weight": (NUM_CLASSES, like["fc"]["kernel"].shape[0]), "fc.bias": (NUM_CLASSES,)}
    layers = [name for name in like if name != "fc"]
    for name in layers:
        h, w, in_ch, out_ch = like[name]["kernel"].shape
        expected |= {f"{name}.conv.weight": (out_ch, in_ch, h, w)} | {f"{name}.bn.{key}": (out_ch,) for key in _NORM}
    # Newer versions of torch count the steps of a batch norm, which only training reads.
    weights = {name: array for name, array in weights.items() if not name.endswith(".num_batches_tracked")}
    problems = arguments.misfits({name: array.shape for name, array in weights.items()}, expected)
    problems += [f"{name} is not finite" for name in expected if not np.isfinite(weights.get(name, 0)).all()]
    if problems:
        raise ValueError(f"These are not the weights of Inception: {arguments.listed(problems, 5)}.")

    params = {"fc": {"kernel": np.ascontiguousarray(weights["fc.weight"].T, np.float32)}}
    for name in layers:
        scale, bias, mean, var = (weights[f"{name}.bn.{key}"].astype(np.float64) for key in _NORM)
        scale = scale / np.sqrt(var + _EPSILON)
        kernel = weights[f"{name}.conv.weight"].transpose(2, 3, 1, 0) * scale  # [h, w, in, out]
        params[name] = {
            "kernel": np.ascontiguousarray(kernel, np.float32),
            "bias": (bias - mean * scale).astype(np.float32),
        }
    return params


def read(path: Path | None = None) -> tuple[str, dict[str, dict[str, np.ndarray]]]:
    """Reads the weights: their name, and the parameters of `Inception`.

    Args:
        path: a file of `torch.save` or `np.savez` (.npz), with weights as `params_from_state_dict` takes them. None:
            the weights that define FID, downloaded once into `cache.folder()`.

    Returns:
        'inception-2015-12-05' if the file is the published one, else 'inception-custom', whose scores compare with
        nobody's; and the parameters.

    Raises:
        FileNotFoundError: if there is no such file, or it could not be downloaded; the message says where from.
        ValueError: if the file is damaged or holds anything else.
    """
    path = fetch(_FILE, url=_URL, checksum=_SHA256) if path is None else Path(path)
    with foreign_files.reading(path, "cannot be read"):
        name = "inception-2015-12-05" if sha256(path) == _SHA256 else "inception-custom"
    if path.suffix != ".npz":
        return name, params_from_state_dict(read_state_dict(path))
    with foreign_files.open_npz(path, "is not an .npz of weights that can be read") as arrays:
        weights = dict(arrays)
    return name, params_from_state_dict(weights)


def from_params(name: str, params: Any) -> Extractor:
    """Makes an extractor of 2048 features and 1008 logits from what `read` returned."""
    return Extractor(name, fingerprint(params), params, apply)


def extractor(path: Path | None = None) -> Extractor:
    """Returns the Inception network with the weights that `read(path)` reads; raises as `read` does."""
    return from_params(*read(path))
