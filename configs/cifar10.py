"""CIFAR-10, unconditional: Section 4 and Appendix B of the paper, Table 1.

The paper: FID 3.17, Inception score 9.46, at most 3.75 bits/dim, after 800k steps; 10.6 hours on a TPU v3-8 at 21
steps/s. Independent runs of 800k steps reach an FID of 3.17 to 3.25, of 200k steps about 4.1, of 50k about 9.

Run: ddpm-train --config=cifar10 --workdir=runs/cifar10
The data: ddpm-data prepare cifar10. Or a folder or tar of the images, with
    --config.data.name=image_folder --config.data.data_dir=cifar10.tar
"""

import ml_collections

from ddpm_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
    return default.get_config()  # which is the paper's CIFAR-10 model
