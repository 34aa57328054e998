import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_jax.metrics import moments


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 40), max_size=5), st.sampled_from([0.0, 1e6]))
def test_moments_are_those_of_numpy_whatever_the_split_and_the_order(seed, cuts, offset):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((41, 5)) @ rng.standard_normal((5, 5)) + offset
    parts = [part for part in np.split(features, sorted(cuts)) if len(part)]
    partial = [moments.from_features(parts[i]) for i in rng.permutation(len(parts))]
    while len(partial) > 1:  # any two, either way round
        i, j = rng.choice(len(partial), 2, replace=False)
        merged = moments.merge(partial[i], partial[j])
        partial = [each for place, each in enumerate(partial) if place not in (i, j)] + [merged]
    assert partial[0].count == 41
    np.testing.assert_allclose(partial[0].mean, features.mean(axis=0), rtol=1e-12, atol=1e-12)
    centred = features - offset  # exact, or nearly, where np.cov of numbers around 1e6 is not
    expected = np.cov(centred, rowvar=False)
    np.testing.assert_allclose(
        partial[0].covariance(), expected, rtol=0, atol=1e-12 * (1 + offset) * np.trace(expected)
    )


def test_a_large_common_mean_costs_no_digits():
    """Takes features far from 0, where sums of squares, around 1e18, would lose all digits."""
    small = np.random.default_rng(0).integers(-8, 9, (9000, 3))  # more than two blocks
    result = moments.from_features(small + 1e9)
    np.testing.assert_allclose(result.covariance(), np.cov(small, rowvar=False), atol=1e-8)
    np.testing.assert_allclose(result.mean - 1e9, small.mean(axis=0), atol=3e-7)  # of 1e9, to float64's last digit


def test_float32_from_a_file_is_summed_in_float64(tmp_path):
    features = np.random.default_rng(0).standard_normal((9001, 4), dtype=np.float32) + 100
    np.save(tmp_path / "features.npy", features)
    result = moments.from_features(np.load(tmp_path / "features.npy", mmap_mode="r"))
    np.testing.assert_allclose(result.mean, features.mean(axis=0, dtype=np.float64), rtol=1e-14)
    np.testing.assert_allclose(result.covariance(), np.cov(features.astype(np.float64), rowvar=False), atol=1e-12)


def test_impossible_features_are_refused():
    one = moments.from_features(np.ones((1, 3)))
    with pytest.raises(ValueError, match="needs 2 features at least; got 1"):
        one.covariance()
    with pytest.raises(ValueError, match="width 3 and 2"):
        moments.merge(one, moments.from_features(np.ones((1, 2))))
    for shape in ((0, 3), (3,), (3, 0)):
        with pytest.raises(ValueError, match=r"must be \[n, D\]"):
            moments.from_features(np.ones(shape))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="must be finite"):
            moments.from_features(np.array([[1.0, bad]]))


def test_a_file_comes_back_and_is_what_pytorch_fid_reads(tmp_path):
    features = np.random.default_rng(0).standard_normal((50, 4))
    statistics = moments.from_features(features).statistics(split="train", size=[8, 8])
    path = tmp_path / "statistics.npz"
    moments.save(path, statistics)
    again = moments.load(path)
    np.testing.assert_array_equal(again.mean, statistics.mean)
    np.testing.assert_array_equal(again.covariance, statistics.covariance)
    assert (again.count, again.metadata) == (50, {"split": "train", "size": [8, 8]})
    with np.load(path) as file:  # as pytorch_fid.fid_score does
        assert json.loads(str(file["about"])) == {"split": "train", "size": [8, 8]}  # the key of files in old caches
        np.testing.assert_array_equal(file["mu"][:], statistics.mean)
        np.testing.assert_array_equal(file["sigma"][:], statistics.covariance)
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
    np.savez(path, mu=statistics.mean, sigma=statistics.covariance)  # as pytorch_fid writes
    theirs = moments.load(path)
    assert (theirs.count, theirs.metadata) == (None, {})
    np.testing.assert_array_equal(theirs.covariance, statistics.covariance)
    moments.save(path, theirs)
    assert moments.load(path).count is None
    assert [file.name for file in tmp_path.iterdir()] == ["statistics.npz"]


MEAN, COVARIANCE = np.zeros(2), np.eye(2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(mu=MEAN), "has no 'sigma"),
        (dict(mu=MEAN, sigma=np.eye(3)), r"holds \[2\] and \[3, 3\]"),
        (dict(mu=MEAN[None], sigma=COVARIANCE), r"holds \[1, 2\] and \[2, 2\]"),
        (dict(mu=MEAN, sigma=np.diag([1.0, np.nan])), "not finite"),
        (dict(mu=MEAN + np.inf, sigma=COVARIANCE), "not finite"),
        (dict(mu=MEAN, sigma=np.array([[1.0, 0.5], [0.4, 1.0]])), "not symmetric"),
        (dict(mu=np.array(["a", "b"]), sigma=COVARIANCE), "is no .npz of the statistics"),
        (dict(mu=np.array([None, None]), sigma=COVARIANCE), "is no .npz of the statistics"),  # pickled
        (dict(mu=MEAN, sigma=COVARIANCE, about=np.array("{")), "is no .npz of the statistics"),
        (dict(mu=MEAN, sigma=COVARIANCE, about=np.array("[1]")), "is no .npz of the statistics"),
        (dict(mu=MEAN, sigma=COVARIANCE, count=np.array([1, 2])), "is no .npz of the statistics"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_a_sentence(tmp_path, arrays, message):
    np.savez(tmp_path / "statistics.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        moments.load(tmp_path / "statistics.npz")


def test_what_is_no_npz_is_refused(tmp_path):
    path = tmp_path / "statistics.npz"
    with pytest.raises(FileNotFoundError):
        moments.load(path)
    path.write_text(json.dumps({"mu": [0]}))
    with pytest.raises(ValueError, match="is no .npz of the statistics"):
        moments.load(path)
    np.savez(path, mu=np.zeros(500), sigma=np.eye(500))
    path.write_bytes(path.read_bytes()[:9000])  # cut off
    with pytest.raises(ValueError, match="is no .npz of the statistics"):
        moments.load(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))  # a single array, no archive
    with pytest.raises(ValueError, match="is no .npz of the statistics"):
        moments.load(path)
