"""Checkpoints of score_sde's PyTorch release (github.com/yang-song/score_sde_pytorch) as `UNet` parameters.

Of its networks `ddpm` is ours, but that on the way up attention stands once a resolution, after the last residual
block, and not after each. An attention block of ours whose weights are all zero passes on what it is given, so such
blocks fill the gaps and the function is the same. (Trained further, they learn the bias of their last layer, and no
more.) Its output is eps where it was trained in 1000 discrete steps of its VP process, which is the paper's: the
published `vp/cifar10_ddpm`.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from ddpm_jax.interop import torch_file
from ddpm_jax.runtime import foreign_files

_LAYERS = {
    "resnet": {"GroupNorm_0": "norm1", "Conv_0": "conv1", "Dense_0": "temb_proj", "GroupNorm_1": "norm2",
               "Conv_1": "conv2", "NIN_0": "nin_shortcut"},
    "attn": {"GroupNorm_0": "norm", "NIN_0": "q", "NIN_1": "k", "NIN_2": "v", "NIN_3": "proj_out"},
    "resample": {"Conv_0": "conv"},
}  # fmt: skip


class Checkpoint(NamedTuple):
    """What a checkpoint holds: nested `params` of a `UNet`, and their average."""

    params: dict
    ema_params: dict


def _modules(like: dict) -> Iterator[tuple[str, str]]:
    """Lists its modules in their order, as our names and the kind of layers that they have."""
    levels = 1 + max(int(name.split("_")[1]) for name in like if name.startswith("down_"))
    blocks = sum(name.startswith("down_0_block_") for name in like)
    yield from (("temb_dense0", ""), ("temb_dense1", ""), ("conv_in", ""))
    for level in range(levels):
        for i in range(blocks):
            yield f"down_{level}_block_{i}", "resnet"
            yield f"down_{level}_attn_{i}", "attn"
        yield f"down_{level}_downsample", "resample"
    yield from (("mid_block_1", "resnet"), ("mid_attn_1", "attn"), ("mid_block_2", "resnet"))
    for level in reversed(range(levels)):
        yield from ((f"up_{level}_block_{i}", "resnet") for i in range(blocks + 1))
        yield f"up_{level}_attn_{blocks}", "attn"
        yield f"up_{level}_upsample", "resample"
    yield from (("norm_out", ""), ("conv_out", ""))


def _to_ours(name: str, array: np.ndarray, modules: list[tuple[str, str]]) -> tuple[tuple[str, ...], np.ndarray]:
    """Converts the name, `all_modules.3.Conv_0.weight` -> ('down_0_block_0', 'conv1', 'kernel'), and the layout."""
    number, *layer, leaf = name.removeprefix("module.").removeprefix("all_modules.").split(".")
    module, kind = modules[int(number)]
    path = (module, *(_LAYERS[kind][each] for each in layer))
    if leaf in ("bias", "b"):
        return (*path, "bias"), array
    if leaf == "weight" and array.ndim > 1:
        array = np.moveaxis(array, (0, 1), (-1, -2))  # [out, in, h, w] -> [h, w, in, out]
    return (*path, "kernel" if array.ndim > 1 else "scale"), array


def read_checkpoint(path: str | os.PathLike, like: dict) -> Checkpoint:
    """Reads a checkpoint without torch, and without running the pickle in it.

    Args:
        path: of the .pth file.
        like: the `params` of the `UNet` that it is of, arrays or their shapes (`jax.ShapeDtypeStruct`).

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged, or not of such a network.
    """
    state = torch_file.read_state_dict(path, ("model",))
    shadows = torch_file.read_state_dict(path, ("ema", "shadow_params"))
    with foreign_files.reading(path, "is no checkpoint of score_sde's network ddpm of this config"):
        names = [name for name in state if not name.endswith("sigmas")]
        averages = dict(zip(names, shadows.values(), strict=True))
        return Checkpoint(_params({name: state[name] for name in names}, like), _params(averages, like))


def _params(state: dict[str, np.ndarray], like: dict) -> dict:
    modules = [(name, kind) for name, kind in _modules(like) if name in like]
    params = {
        path: np.zeros(leaf.shape, np.float32)
        for path, leaf in flatten_dict(like).items() if path[0].startswith("up_") and path[0] not in dict(modules)
    }  # fmt: skip
    for name, array in state.items():
        path, converted = _to_ours(name, np.asarray(array, np.float32), modules)
        params[path] = converted
    return unflatten_dict(params)
