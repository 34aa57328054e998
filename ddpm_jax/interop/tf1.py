"""Weights of the official TensorFlow release (github.com/hojonathanho/diffusion) as `UNet` parameters.

The official variables have names like `model/down_0/block_1/conv1/W`. No array needs transposing: both sides use NHWC
with HWIO kernels, and matrices for 1x1 convolutions.
"""

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_LEAVES = {"W": "kernel", "b": "bias", "gamma": "scale", "beta": "bias"}
_BLOCKS = ("block", "attn", "downsample", "upsample")  # scopes that contain layers


def _to_ours(name: str) -> tuple[str, ...]:
    """Converts a name: `model/down_0/block_1/conv1/W` -> ('down_0_block_1', 'conv1', 'kernel')."""
    *scopes, leaf = name.removeprefix("model/").split("/")
    if leaf not in _LEAVES:
        raise ValueError(
            f"{name!r} is not a variable of the official U-Net: its last part is none of W, b, gamma, beta."
        )
    block, layer = scopes[:-1], scopes[-1:]
    if not (block and block[-1].startswith(_BLOCKS)):
        return "_".join(scopes), _LEAVES[leaf]
    return "_".join(block), *layer, _LEAVES[leaf]


def params_from_tf(variables: dict[str, np.ndarray], like: dict | None = None) -> dict:
    """Renames official variables into `UNet` parameters.

    Args:
        variables: official name (with or without `:0` and the leading `model/`) -> float32 array. Leave out the
            optimizer's slots; for the EMA weights strip their suffix `/ExponentialMovingAverage`.
        like: the `params` of a `UNet`, arrays or `jax.ShapeDtypeStruct`s (from `jax.eval_shape`), to check against.

    Returns:
        The nested `params` for `UNet.apply({"params": ...}, ...)`, float32 NumPy arrays.

    Raises:
        ValueError: naming every variable that is missing, that `like` lacks, or whose shape differs.
    """
    ours = {_to_ours(name.removesuffix(":0")): np.asarray(array, np.float32) for name, array in variables.items()}
    if like is not None:
        expected = flatten_dict(like)
        problems = [f"missing: {'/'.join(path)}" for path in expected if path not in ours]
        problems += [f"left over: {'/'.join(path)}" for path in ours if path not in expected]
        problems += [
            f"{'/'.join(path)} has shape {array.shape}, the model wants {expected[path].shape}"
            for path, array in ours.items()
            if path in expected and array.shape != expected[path].shape
        ]
        if problems:
            raise ValueError("The variables do not fit this U-Net. " + "; ".join(problems) + ".")
    return unflatten_dict(ours)
