"""Whether weights from elsewhere are those of a network: each parameter there, in its shape, and nothing else."""

import numpy as np
from flax.traverse_util import flatten_dict


def check_fits(params: dict[tuple[str, ...], np.ndarray], like: dict, *, what: str) -> None:
    """Compares parameters with those of a `UNet`.

    Args:
        params: path of the parameter -> array.
        like: the nested `params` of the network, arrays or their shapes (`jax.ShapeDtypeStruct`).
        what: names the weights in the message, such as 'The variables'.

    Raises:
        ValueError: naming every parameter that is missing, that `like` lacks, or whose shape differs.
    """
    expected = flatten_dict(like)
    problems = [f"missing: {'/'.join(path)}" for path in expected if path not in params]
    problems += [f"left over: {'/'.join(path)}" for path in params if path not in expected]
    problems += [
        f"{'/'.join(path)} has shape {array.shape}, the model wants {expected[path].shape}"
        for path, array in params.items()
        if path in expected and array.shape != expected[path].shape
    ]
    if problems:
        raise ValueError(f"{what} do not fit this U-Net. " + "; ".join(problems) + ".")
