"""What all tests share: strict JAX settings, the official reference vectors, and a tiny config."""

from pathlib import Path

import jax
import ml_collections
import numpy as np
import pytest

from configs import digits

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")  # on accelerators too

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def golden():
    """`golden("chain")` -> the arrays of tests/data/chain.npz."""
    return lambda name: np.load(DATA / f"{name}.npz")


@pytest.fixture
def tiny_config() -> ml_collections.ConfigDict:
    """Digits, with a network and a chain that take seconds."""
    config = digits.get_config()
    config.diffusion.num_timesteps = 10
    config.model.update(ch_mult=(1,), num_res_blocks=1, attn_resolutions=())
    config.train.update(num_steps=12, batch_size=8, log_every=2, checkpoint_every=4, steps_per_dispatch=1)
    config.sample.update(num_samples=6, batch_size=4)
    return config


def fixed_denoise_fn(coefficients: np.ndarray):
    """The denoise function of the reference vectors: a * x + b * sin(w * t)."""
    a, b, w = (np.float32(value) for value in coefficients[:3])
    return lambda x, t: a * x + b * jax.numpy.sin(w * t.astype("float32"))[:, None, None, None]
