"""The reverse chain (Ho et al. 2020, Algorithm 2).

keys.py          the keys of images, and the noise that is drawn with them
chain.py         one step; the one scan that every sampler runs in: whole, from any x_t on, or in pieces
from_images.py   what begins with images: between two of them, or like one
"""

from ddpm_jax.sampling.chain import (
    Chain,
    NoiseFn,
    decode,
    encode,
    latents_loop,
    p_sample,
    progressive_loop,
    sample_chain,
    sample_loop,
)
from ddpm_jax.sampling.from_images import image_to_image, interpolate
from ddpm_jax.sampling.keys import CHAIN, ODE, PRNG_IMPLS, check_keys, image_keys, noise, over_keys, pinned, run_key

__all__ = [
    "CHAIN",
    "ODE",
    "PRNG_IMPLS",
    "Chain",
    "NoiseFn",
    "check_keys",
    "decode",
    "encode",
    "image_keys",
    "image_to_image",
    "interpolate",
    "latents_loop",
    "noise",
    "over_keys",
    "p_sample",
    "pinned",
    "progressive_loop",
    "run_key",
    "sample_chain",
    "sample_loop",
]
