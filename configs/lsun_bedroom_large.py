"""LSUN Bedroom 256x256, the large model of some 256 million parameters: Table 3 of the paper, FID 4.90.

The paper: 1.15M steps, the time they took is not given. Its width is not given either: 192 channels make 255,677,955
parameters.

Run: ddpm-train --config=lsun_bedroom_large --workdir=runs/lsun_bedroom_large
The data: ddpm-data prepare lsun/bedroom prints what it needs. Or a folder of images, with
    --config.data.name=image_folder --config.data.data_dir=FOLDER
"""

import ml_collections

from ddpm_jax.configs import lsun_bedroom


def get_config() -> ml_collections.ConfigDict:
    config = lsun_bedroom.get_config()
    config.model.ch = 192
    config.train.num_steps = 1_150_000
    return config
