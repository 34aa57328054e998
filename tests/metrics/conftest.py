"""Random weights for Inception, which need no download, and the implementations in PyTorch to compare with."""

import importlib.util
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax.metrics.inception import Inception


def _random(rng: np.random.Generator, low: float, high: float, *shape: int) -> np.ndarray:
    return (low + (high - low) * rng.random(shape)).astype(np.float32)


@pytest.fixture(scope="session")
def random_weights() -> dict[str, np.ndarray]:
    """Draws weights in the published layout, such that activations keep their size through all layers."""
    image = jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32)
    params = jax.eval_shape(Inception().init, jax.random.key(0), image)["params"]
    rng = np.random.default_rng(20151205)
    weights = {"fc.weight": _random(rng, -0.1, 0.1, 1008, 2048), "fc.bias": _random(rng, -1, 1, 1008)}
    for name in sorted(params.keys() - {"fc"}):
        h, w, in_ch, out_ch = params[name]["kernel"].shape
        limit = (6 / (h * w * in_ch)) ** 0.5  # He et al. 2015
        weights[f"{name}.conv.weight"] = _random(rng, -limit, limit, out_ch, in_ch, h, w)
        weights[f"{name}.bn.weight"] = _random(rng, 0.5, 1.5, out_ch)
        weights[f"{name}.bn.bias"] = _random(rng, -0.5, 0.5, out_ch)
        weights[f"{name}.bn.running_mean"] = _random(rng, -0.5, 0.5, out_ch)
        weights[f"{name}.bn.running_var"] = _random(rng, 0.5, 2.5, out_ch)
    return weights


@pytest.fixture(scope="session")
def random_images():
    """Returns `random_images(batch, height, width)` -> uint8 [B, H, W, 3]: coarse and fine noise, contrasts vary."""

    def draw(batch: int, height: int, width: int) -> np.ndarray:
        rng = np.random.default_rng([batch, height, width])
        coarse = rng.random((batch, 4, 4, 3)).repeat(-(-height // 4), axis=1).repeat(-(-width // 4), axis=2)
        fine = rng.random((batch, height, width, 3))
        share = rng.random((batch, 1, 1, 3))
        return np.floor(256 * (share * coarse[:, :height, :width] + (1 - share) * fine)).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def torches(torch):
    """Imports PyTorch and the Inception modules of torch-fidelity and pytorch-fid; skips without them."""
    for name in ("torchvision", "torch_fidelity", "pytorch_fid"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed; make test-slow installs requirements-parity.txt")
    import pytorch_fid.inception
    from torch_fidelity import feature_extractor_inceptionv3

    return SimpleNamespace(torch=torch, fidelity=feature_extractor_inceptionv3, fid=pytorch_fid.inception)
