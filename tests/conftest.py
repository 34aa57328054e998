"""What all tests share: strict JAX settings, the official reference vectors, and a tiny config."""

import importlib.util
import sys
from pathlib import Path

import hypothesis
import jax
import ml_collections
import numpy as np
import pytest

from configs import digits

hypothesis.settings.register_profile("any machine", deadline=None)  # compiling takes its time
hypothesis.settings.load_profile("any machine")

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")  # on accelerators too

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module", autouse=True)
def nothing_left_compiled():
    """Frees what the tests of a file have compiled: few programs are the same in two files."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def golden():
    """Returns a reader of reference vectors: `golden("chain")` loads tests/data/chain.npz."""
    return lambda name: np.load(DATA / f"{name}.npz")


@pytest.fixture(scope="session")
def tpu_compiler():
    """Skips a test where the TPU's compiler is not installed."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu, the TPU's compiler, is not installed")


@pytest.fixture(scope="session")
def torch():
    """Imports PyTorch, and torchvision even where it was built for another PyTorch: diffusers imports it, too."""
    torch = pytest.importorskip("torch", reason="needs PyTorch, which make test-slow installs")
    if importlib.util.find_spec("torchvision") is not None:
        try:
            importlib.import_module("torchvision")
        except RuntimeError:  # its compiled part is for CUDA and does not load; what the tests use needs none of it
            for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
                del sys.modules[name]
            detection = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                detection.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            importlib.import_module("torchvision")
    return torch


@pytest.fixture
def tiny_config() -> ml_collections.ConfigDict:
    """Digits, with a network and a chain that take seconds."""
    config = digits.get_config()
    config.diffusion.num_timesteps = 10
    config.model.update(ch_mult=(1,), num_res_blocks=1, attn_resolutions=())
    config.train.update(num_steps=12, batch_size=8, log_every=2, checkpoint_every=4, steps_per_dispatch=1)
    config.sample.update(num_samples=6, batch_size=4)
    return config
