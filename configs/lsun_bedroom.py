"""LSUN Bedroom 256x256: Table 3 of the paper, FID 6.36.

The paper: 2.4M steps; 303 hours on a TPU v3-8 at 2.2 steps/s. No flips, as Appendix B says of this data set; the
official command turns them off for LSUN Cat instead.

Run: ddpm-train --config=lsun_bedroom --workdir=runs/lsun_bedroom
The data: ddpm-data prepare lsun/bedroom prints what it needs. Or a folder of images, with
    --config.data.name=image_folder --config.data.data_dir=FOLDER
"""

import ml_collections

from ddpm_jax.configs import celebahq256


def get_config() -> ml_collections.ConfigDict:
    config = celebahq256.get_config()
    config.data.update(name="lsun/bedroom", flip=False)
    config.train.num_steps = 2_400_000
    return config
