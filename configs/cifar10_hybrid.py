"""CIFAR-10, unconditional: L_hybrid with the cosine schedule, of Improved DDPM (Nichol and Dhariwal, arXiv:2102.09672).

That paper, with 4000 timesteps, after 500k steps: FID 3.19, at most 3.17 bits/dim; with L_simple (var_type=fixedlarge,
loss_type=mse) 3.05 and 3.26; its L_vlb is cifar10_vlb.py. Its diffusion, depth, dropout and optimizer, which neither
warms up nor clips, nor mirrors images; the network is otherwise DDPM's: one head of attention, and the timestep is
added, where that paper's has four and scales by it.

Run: ddpm-train --config=cifar10_hybrid --workdir=runs/cifar10_hybrid
"""

import ml_collections

from ddpm_jax.configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    config = cifar10.get_config()
    config.data.flip = False
    config.diffusion.update(schedule="cosine", num_timesteps=4000, rescale_timesteps=True)
    config.diffusion.update(var_type="learned_range", loss_type="hybrid")
    config.model.update(num_res_blocks=3, attn_resolutions=(16, 8), dropout=0.3)
    config.optim.update(lr=1e-4, warmup_steps=0, clip_norm=1e9)
    config.train.num_steps = 500_000
    return config
