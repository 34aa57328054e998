"""LSUN Church 256x256: Table 3 of the paper, FID 7.89.

The paper: 1.2M steps; 152 hours on a TPU v3-8 at 2.2 steps/s. The released checkpoint is of step 4,432,000.

Run: python train.py --config=configs/lsun_church.py --workdir=runs/lsun_church
The data: python -m ddpm_jax.data prepare lsun/church_outdoor says what it needs, or a folder of images, with
    --config.data.name=image_folder --config.data.data_dir=FOLDER
"""

import ml_collections

from configs import celebahq256


def get_config() -> ml_collections.ConfigDict:
    config = celebahq256.get_config()
    config.data.name = "lsun/church_outdoor"
    config.train.num_steps = 1_200_000
    return config
