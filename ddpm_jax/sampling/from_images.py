"""What begins with images: they are noised by q to an x_t and decoded by p."""

import jax
import jax.numpy as jnp

from ddpm_jax import samplers
from ddpm_jax.arguments import check_alike, check_range, check_shape
from ddpm_jax.diffusion import Constrain, DenoiseFn, Process, q_sample
from ddpm_jax.samplers import Sampler
from ddpm_jax.sampling.chain import NoiseFn, decode
from ddpm_jax.sampling.keys import check_keys, noise


def interpolate(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0_a: jax.Array,
    x_0_b: jax.Array,
    eps_a: jax.Array,
    eps_b: jax.Array,
    weight: jax.Array,
    num_steps: jax.Array | int,
    keys: jax.Array,
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> jax.Array:
    """Draws images between two images (Section 4.4, Figures 8 and 9): encoded by q, mixed, decoded by p.

    What is mixed are the latents, x_t = (1 - weight) x_t^a + weight x_t^b, as the text of the paper says and the
    released code does; the formula printed in Section 4.4 has x_0 in their place. Each of the two has noise of its
    own; a row of Figure 8 is one pair with the same noises and the same key, in which only the weight varies. The
    mixed noise is then weaker than that of a true x_t, by half its variance at the middle.

    Args:
        process, denoise_fn, clip, sampler, noise_fn: see `sample_loop`.
        x_0_a, x_0_b: [B, H, W, C] in [-1, 1].
        eps_a, eps_b: [B, H, W, C] standard normal, with which the two are encoded.
        weight: [B] in [0, 1], the paper's lambda: 0 decodes a alone, 1 decodes b alone.
        num_steps: scalar int in 0..T, of encoding and decoding; 0 mixes the images themselves. May be traced.
        keys: [B], of the noise of decoding.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    check_shape("x_0_a", x_0_a, "BHWC")
    check_alike(x_0_a=x_0_a, x_0_b=x_0_b, eps_a=eps_a, eps_b=eps_b)
    check_shape("weight", weight, x_0_a.shape[:1])
    check_keys(keys, batch_size=len(x_0_a))
    sampler = sampler or samplers.ancestral(process)
    check_range("num_steps", num_steps, 0, sampler.num_steps)
    latent_a, latent_b = (
        _noised(process, sampler, x_0=x_0, num_steps=num_steps, eps=eps)
        for x_0, eps in ((x_0_a, eps_a), (x_0_b, eps_b))
    )
    weight = jnp.asarray(weight, x_0_a.dtype)[:, None, None, None]  # [B, 1, 1, 1]
    x_t = (1.0 - weight) * latent_a + weight * latent_b
    return decode(
        process, denoise_fn, x_t=x_t, num_steps=num_steps, keys=keys, clip=clip, sampler=sampler, noise_fn=noise_fn
    )


def image_to_image(
    process: Process,
    denoise_fn: DenoiseFn,
    *,
    x_0: jax.Array,
    num_steps: jax.Array | int,
    keys: jax.Array,
    clip: bool | Constrain = True,
    sampler: Sampler | None = None,
    noise_fn: NoiseFn = noise,
) -> jax.Array:
    """Draws images that resemble others, which are noised by q and decoded by p (SDEdit, Meng et al. 2021).

    arXiv:2108.01073. The more steps, the less is kept: the noise hides what is fine before what is coarse.

    Args:
        process, denoise_fn, clip, sampler: see `sample_loop`.
        x_0: [B, H, W, C] in [-1, 1], photographs, sketches or collages.
        num_steps: scalar int in 0..K, of the sampler's; with 0 `x_0` is returned as it is. May be traced.
        keys: [B], of all noise.
        noise_fn: see `sample_loop`; the noise of x_T, index T, is the one that images are noised with. So with all
            steps the image is about the one that `sample_loop` draws with the key.

    Returns:
        [B, H, W, C] float32, about in [-1, 1].
    """
    check_shape("x_0", x_0, "BHWC")
    check_keys(keys, batch_size=len(x_0))
    sampler = sampler or samplers.ancestral(process)
    check_range("num_steps", num_steps, 0, sampler.num_steps)
    eps = noise_fn(keys, process.num_timesteps, x_0.shape[1:])
    x_t = _noised(process, sampler, x_0=x_0, num_steps=num_steps, eps=eps)
    return decode(
        process, denoise_fn, x_t=x_t, num_steps=num_steps, keys=keys, clip=clip, sampler=sampler, noise_fn=noise_fn
    )


def _noised(
    process: Process, sampler: Sampler, *, x_0: jax.Array, num_steps: jax.Array | int, eps: jax.Array
) -> jax.Array:
    """Draws the x_t from which `num_steps` steps of the sampler are left, by q; with none left that is x_0."""
    t = jnp.full(x_0.shape[:1], jnp.asarray(sampler.timesteps)[jnp.maximum(num_steps - 1, 0)])  # [B]
    return jnp.where(num_steps > 0, q_sample(process, x_0=x_0, t=t, eps=eps), x_0)
