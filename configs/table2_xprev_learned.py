"""CIFAR-10, ablation, Table 2 of the paper: mu-tilde prediction, L with a learned diagonal variance.

The paper: Inception score 7.28 +- 0.10, FID 23.69. Otherwise all is as in cifar10.py.

Run: ddpm-train --config=table2_xprev_learned --workdir=runs/table2_xprev_learned
"""

import ml_collections

from ddpm_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    config = cifar10.get_config()
    config.diffusion.update(mean_type="xprev", var_type="learned", loss_type="kl")
    return config
