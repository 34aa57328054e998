"""LSUN Church 256x256: Table 3 of the paper, FID 7.89.

The paper: 1.2M steps; 152 hours on a TPU v3-8 at 2.2 steps/s. The released checkpoint is of step 4,432,000.

Run: ddpm-train --config=lsun_church --workdir=runs/lsun_church
The data: ddpm-data prepare lsun/church_outdoor prints what it needs. Or a folder of images, with
    --config.data.name=image_folder --config.data.data_dir=FOLDER
"""

import ml_collections

from ddpm_jax.configs import celebahq256


def get_config() -> ml_collections.ConfigDict:
    config = celebahq256.get_config()
    config.data.name = "lsun/church_outdoor"
    config.train.num_steps = 1_200_000
    return config
