"""Every kind of random number that the library draws; as a program it prints their fingerprint."""

import functools
import hashlib

import flax.linen as nn
import jax
import numpy as np

from ddpm_jax import data, diffusion, likelihood, sampling, timesteps, training
from ddpm_jax.schedule import beta_schedule
from ddpm_jax.unet import ResnetBlock, timestep_embedding

SHAPE = (4, 4, 3)
PROCESS = diffusion.make_process(beta_schedule("linear", 7))


class Network(nn.Module):
    """The parts of the U-Net that have parameters and draw dropout's masks."""

    @nn.compact
    def __call__(self, x, t, *, train=False):
        h = nn.Dense(32)(x)
        h = ResnetBlock(32, dropout=0.5)(h, timestep_embedding(t, 32), train)
        return nn.Dense(3)(h)


def draws():
    """Draws keys, noise, images, bits/dim, the start of training and what one step of it draws; arrays by name."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), dtype=np.uint8)
    x_0 = (pixels / 127.5 - 1.0).astype(np.float32)
    optimizer = training.make_optimizer(lr=1e-3, warmup_steps=0, clip_norm=1.0)
    step = functools.partial(
        training.train_step, rng=sampling.run_key(2), process=PROCESS, model=Network(), optimizer=optimizer,
        loss_type="mse", ema_decay=0.9, ema_warmup=False, flip=True,
    )  # fmt: skip

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles faster
    def draw(keys):
        denoise_fn = lambda x_t, t: 0.1 * x_t  # noqa: E731
        state = training.create_state(Network(), optimizer, rng=sampling.run_key(1), image_shape=SHAPE)
        _, metrics = step(state, data.Batch(pixels, np.zeros(4, np.int32)))
        samplers = [timesteps.make_sampler(name, num_timesteps=7, batch_size=4) for name in timesteps.CHOICES]
        return {
            "timesteps": [sampler.draw(sampler.init(), keys, np.arange(4, dtype=np.int32)) for sampler in samplers],
            "keys": jax.random.key_data(keys),
            "noise": sampling.noise(keys, 5, SHAPE, stream=2),
            "images": sampling.sample_loop(PROCESS, denoise_fn, keys=keys, shape=SHAPE),
            "bound": likelihood.bpd_loop(PROCESS, denoise_fn, x_0=x_0, keys=keys),
            "estimate": likelihood.bpd_estimate(PROCESS, denoise_fn, x_0=x_0, keys=keys, num_timesteps=3),
            "start": state.params,
            "step": (metrics.loss, metrics.quarter_loss, metrics.quarter_count),
        }

    leaves = jax.tree_util.tree_leaves_with_path(draw(sampling.image_keys(3, np.arange(4))))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


if __name__ == "__main__":
    digest = hashlib.sha256()
    for name, array in draws().items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    print(digest.hexdigest())
