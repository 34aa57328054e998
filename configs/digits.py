"""Handwritten digits, 8x8 grey (scikit-learn's, 1,442 images): a demonstration of a few minutes on two CPU cores.

Not in the paper; its schedule, loss and architecture, with the smallest width. 355 more images are held out: the split
'test', which evaluate.py measures.

Run: ddpm-train --config=digits --workdir=runs/digits
"""

import ml_collections

from ddpm_jax.configs import default


def get_config() -> ml_collections.ConfigDict:
    config = default.get_config()
    config.data.update(name="digits", image_size=(8, 8), channels=1, flip=False)
    config.model.update(ch=32, ch_mult=(1, 2), num_res_blocks=1, attn_resolutions=(4,), dropout=0.0)
    config.optim.update(lr=1e-3, warmup_steps=100, ema_decay=0.995, ema_warmup=True)
    config.train.update(num_steps=1200, batch_size=64, checkpoint_every=400, sample_every=0, keep_period=0)
    config.train.update(steps_per_dispatch=10)
    config.sample.update(num_samples=100, batch_size=100)
    return config
