import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ddpm_jax.metrics import precision_recall as module
from ddpm_jax.metrics.precision_recall import precision_recall


def brute_force(real, generated, k):
    """Computes all distances in float64."""
    real, generated = np.float64(real), np.float64(generated)
    of_real, of_generated = (np.sort(cdist(x, x), axis=1)[:, k] for x in (real, generated))  # [:, 0] is itself
    distances = cdist(real, generated)
    precision = (distances <= of_real[:, None]).any(axis=0).mean()
    recall = (distances <= of_generated[None]).any(axis=1).mean()
    return precision, recall, k


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.sampled_from([1, 7, 64]), st.sampled_from([1e-20, 1.0, 1e20]))
def test_it_is_exact(seed, k, width, scale):
    rng = np.random.default_rng(seed)
    real = rng.standard_normal((80, width)) * scale
    generated = (rng.standard_normal((60, width)) * 0.8 + 0.3) * scale
    assert precision_recall(real, generated, k=k) == brute_force(real, generated, k)


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    real, generated = rng.standard_normal((2, 100, 5), dtype=np.float32)
    result = precision_recall(real, generated)
    assert result == brute_force(real, generated, 3)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert precision_recall(real, generated) == result


def test_a_large_common_mean_and_ties_are_exact():
    """Takes points of a lattice far from 0: nearly all distances are tied, and far below the norms."""
    rng = np.random.default_rng(0)
    real, generated = rng.integers(0, 4, (2, 150, 3)) + 1e6
    assert precision_recall(real, generated) == brute_force(real, generated, 3)


def test_pairs_nearer_than_float32_can_tell_are_exact():
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 8)) * 100
    real = np.repeat(centres, 6, axis=0) + 1e-6 * rng.standard_normal((120, 8))
    generated = np.repeat(centres, 6, axis=0) + 1e-6 * rng.standard_normal((120, 8))
    result = precision_recall(real, generated)
    assert result == brute_force(real, generated, 3)
    assert 0.1 < result.precision < 0.99


def test_features_that_vanish_beside_outliers_are_exact():
    """Takes outliers so far away that in float32 all other distances underflow to 0."""
    rng = np.random.default_rng(0)
    real, generated = rng.standard_normal((2, 60, 8))
    real[:2] = [[1e25], [-1e25]]
    result = precision_recall(real, generated)
    assert result == brute_force(real, generated, 3)
    assert 0.1 < result.recall < 0.9


def test_copies_lie_in_balls_of_radius_zero_and_nothing_else_does():
    rng = np.random.default_rng(0)
    real = np.repeat(rng.standard_normal((10, 32), dtype=np.float32), 4, axis=0) + 5  # so each radius is 0
    generated = rng.standard_normal((40, 32), dtype=np.float32) + 5
    generated[:12] = real[::4][:3].repeat(4, axis=0)
    generated[12:16] = np.nextafter(real[39], np.float32(np.inf))  # one bit off
    result = precision_recall(real, generated)
    assert result.precision == 12 / 40
    assert result == brute_force(real, generated, 3)
    assert precision_recall(real, real) == (1.0, 1.0, 3)
    assert precision_recall(np.ones((9, 2)), np.ones((9, 2))) == (1.0, 1.0, 3)
    assert precision_recall(np.ones((9, 2)), np.zeros((9, 2))) == (0.0, 0.0, 3)


def test_precision_is_of_the_generated_and_recall_of_the_real():
    """Compares two modes with one: samples of one mode are precise, but recall only half of the features."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((400, 2)) * 0.1 + np.array([[0.0, 0.0], [9.0, 0.0]]).repeat(200, axis=0)
    one_mode = rng.standard_normal((400, 2)) * 0.05
    result = precision_recall(real, one_mode)
    assert result.precision > 0.95
    assert result.recall < 0.5
    result = precision_recall(one_mode, real)
    assert result.precision < 0.5
    assert result.recall > 0.95


@pytest.mark.parametrize(
    ("real", "generated", "k", "message"),
    [
        (np.ones((9, 2)), np.ones((9, 3)), 3, r"of one D; got \[9, 2\] and \[9, 3\]"),
        (np.ones((9, 2)), np.ones((3, 2)), 3, "4 features at least; got 3"),
        (np.ones((9, 2)), np.full((9, 2), np.inf), 3, "finite"),
        (np.ones((9, 2)), np.ones((9, 2)), 0, "k=0 must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(real, generated, k, message):
    with pytest.raises(ValueError, match=message):
        precision_recall(real, generated, k=k)
