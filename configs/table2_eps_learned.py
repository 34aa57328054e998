"""CIFAR-10, ablation, Table 2 of the paper: eps prediction, L with a learned diagonal variance.

The paper: unstable to train, scores out of range. Otherwise all is as in cifar10.py.

Run: ddpm-train --config=table2_eps_learned --workdir=runs/table2_eps_learned
"""

import ml_collections

from ddpm_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    config = cifar10.get_config()
    config.diffusion.update(mean_type="eps", var_type="learned", loss_type="kl")
    return config
