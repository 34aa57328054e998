"""Whether weights from elsewhere are those of a network: each parameter there, in its shape, and nothing else."""

import numpy as np
from flax.traverse_util import flatten_dict

from ddpm_jax import arguments


def check_fits(params: dict[tuple[str, ...], np.ndarray], like: dict, *, what: str) -> None:
    """Compares parameters with those of a `UNet`.

    Args:
        params: path of the parameter -> array.
        like: the nested `params` of the network, arrays or their shapes (`jax.ShapeDtypeStruct`).
        what: names the weights in the message, such as 'The variables'.

    Raises:
        ValueError: naming every parameter that is missing, that `like` lacks, or whose shape differs.
    """
    given, wanted = ({"/".join(path): x.shape for path, x in of.items()} for of in (params, flatten_dict(like)))
    if problems := arguments.misfits(given, wanted):
        raise ValueError(f"{what} do not fit this U-Net. " + "; ".join(problems) + ".")
