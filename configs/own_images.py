"""Your own images, 64x64 in colour: a small network for a folder of some thousand pictures, and some thousand steps.

Not in the paper. The average looks back 1000 steps at most and less at the start, so that the first grids of samples
show something; the learning rate is reached after 500 steps. A tenth of the images is held out as split 'test' where
the folder has no train/ and test/. `--dry_run` says whether a step fits this machine, and what would.

Run: ddpm-train --config=own_images --workdir=runs/mine --config.data.data_dir=my_images --dry_run
     ddpm-train --config=own_images --workdir=runs/mine --config.data.data_dir=my_images
     ddpm-sample --workdir=runs/mine
"""

import ml_collections

from ddpm_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.data.update(name="image_folder", data_dir="my_images", image_size=(64, 64), holdout=0.1)
    config.model.update(ch=64, ch_mult=(1, 2, 2, 2), num_res_blocks=1, attn_resolutions=(16,))
    config.optim.update(warmup_steps=500, ema_decay=0.999, ema_warmup=True)
    config.train.update(num_steps=20_000, batch_size=16, checkpoint_every=500, sample_every=1000, keep_period=0)
    config.sample.update(num_samples=36, batch_size=36)
    return config
