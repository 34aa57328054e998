"""Inception beside torch-fidelity's and pytorch-fid's, with random weights in the published layout."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ddpm_jax.metrics import inception

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5  # of the largest value; pixels taken at their centres would differ by over 1e-3


def assert_close(ours: jax.Array, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


@pytest.fixture(scope="module")
def saved(torches, random_weights, tmp_path_factory):
    """Returns the paths of the random weights, as `torch.save` writes them in both layouts."""
    tensors = {name: torches.torch.from_numpy(array) for name, array in random_weights.items()}
    folder = tmp_path_factory.mktemp("weights")
    paths = SimpleNamespace(zip=folder / "zip.pth", legacy=folder / "legacy.pth")
    torches.torch.save(tensors, paths.zip)
    torches.torch.save(tensors, paths.legacy, _use_new_zipfile_serialization=False)
    return paths


@pytest.fixture(scope="module")
def fidelity(torches, saved):
    """Returns `fidelity(pixels)` -> features and logits of torch-fidelity, whose loading checks names and shapes."""
    module = torches.fidelity.FeatureExtractorInceptionV3(
        "random", ["2048", "logits_unbiased"], feature_extractor_weights_path=saved.zip
    )

    def run(pixels: np.ndarray) -> list[np.ndarray]:
        return [feature.numpy() for feature in module(torches.torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()))]

    return run


@pytest.fixture(scope="module")
def extractor(saved):
    return inception.extractor(saved.zip)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (48, 64), (299, 299), (320, 400)])
def test_features_and_logits_are_torch_fidelitys(extractor, fidelity, random_images, size):
    pixels = random_images(3, *size)
    features = jax.jit(extractor.apply)(extractor.params, pixels)
    pool, logits = fidelity(pixels)
    assert 0.1 < pool.std() < 10  # neither died out nor exploded on the way
    assert pool.std(axis=0).mean() > 100 * TOLERANCE  # and it tells images apart
    assert_close(features.pool, pool)
    assert_close(features.logits, logits)


def test_features_are_pytorch_fids_where_nothing_is_resized(
    torches, extractor, random_weights, random_images, monkeypatch
):
    tensors = {name: torches.torch.from_numpy(array) for name, array in random_weights.items()}
    monkeypatch.setattr(torches.fid, "load_state_dict_from_url", lambda *_, **__: tensors)
    module = torches.fid.InceptionV3(resize_input=False, normalize_input=False).eval()
    pixels = random_images(2, 299, 299)
    images = torches.torch.from_numpy((pixels.transpose(0, 3, 1, 2).astype(np.float32) - 128) / 128)
    (pool,) = module(images)
    assert_close(jax.jit(extractor.apply)(extractor.params, pixels).pool, pool.squeeze((2, 3)).numpy())


def test_both_layouts_of_torch_save_hold_the_same(saved, extractor, random_weights):
    legacy = inception.extractor(saved.legacy)
    assert (legacy.name, legacy.fingerprint) == (extractor.name, extractor.fingerprint)
    for name, array in inception.read_state_dict(saved.legacy).items():
        np.testing.assert_array_equal(array, random_weights[name])


def test_the_recorded_features_are_torch_fidelitys(golden, fidelity):
    recorded = golden("inception")
    for name, theirs in zip(("pool", "logits"), fidelity(recorded["pixels"]), strict=True):
        np.testing.assert_allclose(recorded[name], theirs, rtol=0, atol=TOLERANCE * np.abs(theirs).max())


def test_a_file_of_samples_scores_as_torch_fidelity_scores_it(torches, saved, fidelity, random_images, tmp_path):
    """Runs evaluate.py from end to end: two files of images, features, scores."""
    sets = {"generated": random_images(40, 32, 32), "real": random_images(50, 32, 32)[:, :, ::-1]}
    for name, pixels in sets.items():
        np.savez(tmp_path / f"{name}.npz", pixels)
    command = [
        sys.executable, "evaluate.py", f"--samples={tmp_path / 'generated.npz'}", "--metrics=fid,is,kid,pr",
        f"--reference={tmp_path / 'real.npz'}", f"--inception_weights={saved.zip}", f"--out={tmp_path}",
    ]  # fmt: skip
    environment = os.environ | {"DDPM_JAX_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600)
    entries = json.loads((tmp_path / "metrics.json").read_text())
    ours = {entry["metric"] if entry["metric"] != "pr" else entry["name"]: entry for entry in entries}

    (pool, logits), (real, _) = (
        [torches.torch.from_numpy(np.array(part)) for part in fidelity(pixels)] for pixels in sets.values()
    )
    fid, isc, kid, prc = (
        importlib.import_module(f"torch_fidelity.metric_{name}") for name in ("fid", "isc", "kid", "prc")
    )
    statistics = [fid.fid_features_to_statistics(part) for part in (pool, real)]
    theirs = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert ours["fid"]["value"] == pytest.approx(theirs, rel=1e-3)  # theirs takes roots of rounding errors here
    mean, deviation = isc.isc_features_to_metric(logits, 10, True, 0).values()
    assert (ours["is"]["value"], ours["is"]["error"]) == (
        pytest.approx(mean, rel=1e-5),
        pytest.approx(deviation, rel=1e-2),
    )
    mean, _ = kid.kid_features_to_metric(  # in float64, as float32 sums are off by some 1e-7 and KID is 2.5e-5 here
        pool.double(), real.double(), kid_subsets=100, kid_subset_size=40, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0, rng_seed=0, verbose=False,
    ).values()  # fmt: skip
    assert ours["kid"]["value"] == pytest.approx(mean, rel=1e-3)
    theirs = prc.prc_features_to_metric(
        pool, real, prc_neighborhood=3, prc_batch_size=500, save_cpu_ram=False, verbose=False
    )
    assert ours["precision@40"]["value"] == pytest.approx(theirs["precision"], abs=1e-6)
    assert ours["recall@40"]["value"] == pytest.approx(theirs["recall"], abs=1e-6)
