"""Scores compared with torch-fidelity's and pytorch-fid's, from the same features."""

import importlib

import numpy as np
import pytest

from ddpm_jax.metrics import moments, scores
from ddpm_jax.metrics.precision_recall import precision_recall

pytestmark = pytest.mark.slow
torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def fidelity(torches):
    """Returns `fidelity("kid")` -> that module of torch-fidelity."""
    return lambda name: importlib.import_module(f"torch_fidelity.metric_{name}")


def features(seed, n, width, *, scale=1.0, dtype=np.float64):
    """Draws features of which half are 0 and the rest correlated, as a ReLU's are."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width, width)) / np.sqrt(width)
    return np.maximum(rng.standard_normal((n, width)) @ mixing * scale + 0.1 * seed, 0.0).astype(dtype)


@pytest.mark.parametrize(("n", "width"), [(2000, 64), (3000, 256), (100, 256)])
def test_fid(fidelity, n, width):
    x, y = features(0, n, width), features(1, n, width, scale=1.3)
    ours = scores.frechet_distance(*(moments.from_features(f).statistics() for f in (x, y))).distance
    metric = fidelity("fid")
    statistics = [metric.fid_features_to_statistics(torch.from_numpy(f)) for f in (x, y)]
    theirs = metric.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    # Of fewer features than dimensions theirs takes roots of rounding errors, 4e-8 of it: test_scores.py has the truth.
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sqrtm(disp=False), in pytorch-fid
@pytest.mark.parametrize(("n", "width"), [(2000, 64), (100, 256)])
def test_pytorch_fid(torches, n, width):
    from pytorch_fid import fid_score

    x, y = features(0, n, width), features(1, n, width, scale=1.3)
    ours = scores.frechet_distance(*(moments.from_features(f).statistics() for f in (x, y))).distance
    theirs = fid_score.calculate_frechet_distance(
        x.mean(axis=0), np.cov(x, rowvar=False), y.mean(axis=0), np.cov(y, rowvar=False)
    )
    assert ours == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize(("n", "splits", "seed"), [(1003, 10, 2020), (57, 3, 1)])
def test_inception_score(fidelity, n, splits, seed):
    logits = np.random.default_rng(0).standard_normal((n, 1008), dtype=np.float32) * 4
    ours = scores.inception_score(logits, splits=splits, seed=seed)
    theirs = fidelity("isc").isc_features_to_metric(torch.from_numpy(logits), splits, True, seed)
    np.testing.assert_allclose(ours, list(theirs.values()), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_kid(fidelity, dtype, tolerance):
    """Tolerates more for float32 features, which torch-fidelity sums in float32."""
    x, y = features(0, 1500, 128, dtype=dtype), features(1, 1200, 128, scale=1.3, dtype=dtype)
    options = dict(
        kid_subsets=20, kid_subset_size=1000, kid_kernel="poly", kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0, rng_seed=2020, verbose=False,
    )  # fmt: skip
    theirs = fidelity("kid").kid_features_to_metric(torch.from_numpy(x), torch.from_numpy(y), **options)
    ours = scores.kernel_distance(x, y, subsets=20, seed=2020)
    np.testing.assert_allclose(ours[:2], list(theirs.values()), rtol=0, atol=tolerance)


@pytest.mark.parametrize("save_cpu_ram", [False, True])
@pytest.mark.parametrize("width", [16, 256])
def test_precision_and_recall(fidelity, width, save_cpu_ram):
    real, generated = features(0, 1500, width), features(1, 1200, width, scale=1.1)
    real[:50] = generated[:50]  # training images that were learnt by heart
    theirs = fidelity("prc").prc_features_to_metric(
        torch.from_numpy(generated), torch.from_numpy(real),
        prc_neighborhood=3, prc_batch_size=500, save_cpu_ram=save_cpu_ram, verbose=False,
    )  # fmt: skip
    ours = precision_recall(real, generated)
    assert ours == pytest.approx((theirs["precision"], theirs["recall"], 3), abs=1e-6)  # theirs is a float32 mean
