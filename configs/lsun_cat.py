"""LSUN Cat 256x256: Table 3 of the paper, FID 19.75.

The paper: 1.8M steps; 227 hours on a TPU v3-8 at 2.2 steps/s. Flips, as Appendix B says of all but LSUN Bedroom; the
official command turns them off here.

Run: ddpm-train --config=lsun_cat --workdir=runs/lsun_cat
The data: ddpm-data prepare lsun/cat prints what it needs. Or a folder of images, with
    --config.data.name=image_folder --config.data.data_dir=FOLDER
"""

import ml_collections

from ddpm_jax.configs import celebahq256


def get_config() -> ml_collections.ConfigDict:
    config = celebahq256.get_config()
    config.data.name = "lsun/cat"
    config.train.num_steps = 1_800_000
    return config
