"""CelebA-HQ 256x256: Section 4 and Appendix B of the paper, whose samples are its Figures 1, 3 and 7 (no FID is given).

The paper: 500k steps; 63 hours on a TPU v3-8 at 2.2 steps/s. An independent run has an FID of 8.85 after 393k steps.
As in the official code the variance is fixedsmall here, and fixedlarge on CIFAR-10. The paper gives no warm-up or
clipping for this size; the official code's are those of CIFAR-10.

Run: ddpm-train --config=celebahq256 --workdir=runs/celebahq256
The data: ddpm-data prepare celeb_a_hq/256 prints what it needs. Or a folder of images, with
    --config.data.name=image_folder --config.data.data_dir=celeba_hq_256
"""

import ml_collections

from ddpm_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.data.update(name="celeb_a_hq/256", image_size=(256, 256))
    config.diffusion.var_type = "fixedsmall"
    config.model.update(ch_mult=(1, 1, 2, 2, 4, 4), dropout=0.0)
    config.optim.lr = 2e-5
    config.train.update(num_steps=500_000, batch_size=64)
    config.sample.update(num_samples=16, batch_size=16)
    return config
