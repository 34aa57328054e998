"""Emoji, 16x16 in colour, by class: 3,860 pictures that examples/emoji/make_images.py takes from a font.

Not in the paper. Seven classes: animals, faces, flags, food, people, symbols, things; of one image in ten the class is
kept from the network while it learns, so that it can be guided. A tenth of the pictures is held out as split 'test'.
An hour on two cores.

Run: python examples/emoji/make_images.py
     ddpm-train --config=emoji --workdir=runs/emoji
     ddpm-sample --workdir=runs/emoji --labels=all --guidance=0.5
"""

import ml_collections

from ddpm_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.data.update(name="image_folder", data_dir="runs/emoji-images", image_size=(16, 16), flip=False, holdout=0.1)
    config.model.update(ch=64, ch_mult=(1, 2, 2), attn_resolutions=(8,), dropout=0.0, num_classes=7)
    config.optim.update(lr=5e-4, warmup_steps=200, ema_decay=0.998, ema_warmup=True)
    config.train.update(num_steps=7000, batch_size=32, checkpoint_every=500, sample_every=3500, keep_period=0)
    config.train.steps_per_dispatch = 10
    config.sample.update(num_samples=98, batch_size=49)
    return config
