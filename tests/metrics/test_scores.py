import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, special, stats

from ddpm_jax.metrics import moments, scores
from ddpm_jax.metrics.moments import Statistics


def gaussian(rng, width, rank=None):
    """Draws statistics with a random mean and a random covariance of this rank."""
    root = rng.standard_normal((width, rank or 3 * width))
    return Statistics(rng.standard_normal(width), root @ root.T / root.shape[1])


def closed_form_of_features(x, y):
    """Computes the Frechet distance from few features directly, without covariances and roots of matrices.

    tr (S_x S_y)^{1/2} is the nuclear norm of the product of the centred features.
    """
    x_centred, y_centred = x - x.mean(axis=0), y - y.mean(axis=0)
    scale = np.sqrt((len(x) - 1.0) * (len(y) - 1.0))
    root = linalg.svdvals(x_centred @ y_centred.T).sum() / scale
    traces = np.square(x_centred).sum() / (len(x) - 1) + np.square(y_centred).sum() / (len(y) - 1)
    return np.square(x.mean(axis=0) - y.mean(axis=0)).sum() + traces - 2 * root


@pytest.mark.parametrize("width", [1, 2, 30])
def test_frechet_distance_equals_scipys_matrix_root(width):
    a, b = (gaussian(np.random.default_rng(seed), width) for seed in (0, 1))
    root = np.trace(linalg.sqrtm(a.covariance @ b.covariance).real)
    expected = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance) - 2 * root
    result = scores.frechet_distance(a, b)
    assert result.distance == pytest.approx(expected, rel=1e-10)
    assert result.distance == pytest.approx(result.mean_term + result.covariance_term, rel=1e-15)
    assert result.mean_term == pytest.approx(np.square(a.mean - b.mean).sum(), rel=1e-12)
    assert scores.frechet_distance(b, a).distance == pytest.approx(result.distance, rel=1e-12)


def test_frechet_distance_of_covariances_that_commute():
    """Compares with the squared distance of the standard deviations in the common basis, zeros among them."""
    rng = np.random.default_rng(0)
    basis = linalg.qr(rng.standard_normal((20, 20)))[0]
    deviations = np.abs(rng.standard_normal((2, 20))) * 10.0 ** rng.integers(-3, 3, (2, 20))
    deviations[0, :5] = deviations[1, 3:8] = 0.0
    a, b = (Statistics(np.zeros(20), basis * d**2 @ basis.T) for d in deviations)
    result = scores.frechet_distance(a, b)
    assert result.distance == pytest.approx(np.square(deviations[0] - deviations[1]).sum(), rel=1e-8)
    assert result.mean_term == 0.0


@pytest.mark.parametrize(("n", "m", "width"), [(100, 100, 256), (100, 40, 64), (2, 3, 17), (300, 20, 64)])
def test_frechet_distance_of_fewer_features_than_dimensions(n, m, width):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, width)) ** 2, rng.standard_normal((m, width)) * 0.5
    result = scores.frechet_distance(moments.from_features(x).statistics(), moments.from_features(y).statistics())
    assert result.distance == pytest.approx(closed_form_of_features(x, y), rel=1e-9)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.sampled_from([1e-12, 1.0, 1e12]))
def test_frechet_distance_is_symmetric_and_zero_of_equals(seed, width, rank, scale):
    rng = np.random.default_rng(seed)
    a, b = (gaussian(rng, width, rank) for _ in range(2))
    a, b = (Statistics(one.mean * scale, one.covariance * scale**2) for one in (a, b))
    distance = scores.frechet_distance(a, b).distance
    assert 0.0 < distance == pytest.approx(scores.frechet_distance(b, a).distance, rel=1e-6)
    assert scores.frechet_distance(a, a).distance <= 1e-12 * (np.trace(a.covariance) + 1e-300)


def test_frechet_distance_of_constant_features():
    a, b = (Statistics(np.full(3, value), np.zeros((3, 3))) for value in (0.0, 2.0))
    assert scores.frechet_distance(a, b) == (12.0, 12.0, 0.0)
    assert scores.frechet_distance(a, Statistics(np.zeros(3), np.eye(3))).distance == 3.0


def test_frechet_distance_refuses_what_does_not_compare():
    a = Statistics(np.zeros(3), np.eye(3))
    with pytest.raises(ValueError, match="width 3 and 2"):
        scores.frechet_distance(a, Statistics(np.zeros(2), np.eye(2)))
    with pytest.raises(ValueError, match="finite"):
        scores.frechet_distance(a, Statistics(np.full(3, np.nan), np.eye(3)))


@pytest.mark.parametrize("n", [256, 1000])
def test_the_extrapolated_distance_of_gaussians_is_the_closed_form(n):
    """Takes 32 dimensions whose variances fall as 1 / i, as those of features do."""
    width, count = 32, 16
    theirs = 10.0 / np.arange(1, width + 1)
    ours, shift = theirs * np.linspace(0.8, 1.3, width), 0.3 * (np.arange(width) < 5)
    exact = np.square(shift).sum() + np.square(np.sqrt(ours) - np.sqrt(theirs)).sum()
    reference = Statistics(np.zeros(width), np.diag(theirs))
    plain, extrapolated = [], []
    for seed in range(count):
        features = shift + np.random.default_rng(seed).standard_normal((n, width)) * np.sqrt(ours)
        plain.append(scores.frechet_distance(moments.from_features(features).statistics(), reference).distance)
        extrapolated.append(scores.extrapolated_frechet_distance(features, reference, seed=seed))
    error = np.std(extrapolated, ddof=1) / np.sqrt(count)
    assert abs(np.mean(extrapolated) - exact) < 3 * error < (np.mean(plain) - exact) / 2


def test_the_extrapolated_distance_is_its_formula():
    features = np.random.default_rng(0).gamma(1.0, size=(500, 8)).astype(np.float32)
    reference, rng = gaussian(np.random.default_rng(1), 8), np.random.RandomState(3)
    sizes, distances = np.linspace(50, 500, 15).astype(int), []
    for size in sizes:
        x = features[rng.permutation(500)[:size]].astype(np.float64)
        subset = Statistics(x.mean(axis=0), np.cov(x, rowvar=False))
        distances.append(scores.frechet_distance(subset, reference).distance)
    expected = stats.linregress(1.0 / sizes, distances).intercept
    assert scores.extrapolated_frechet_distance(features, reference, seed=3) == pytest.approx(expected, rel=1e-9)


def test_inception_score_of_known_distributions():
    certain = np.eye(4, dtype=np.float32)[np.arange(40) % 4] * 1e4  # p underflows to 0 and 1
    score = scores.inception_score(certain, splits=1, seed=0)
    assert score.mean == pytest.approx(4.0, rel=1e-12)  # sure of each image, and all four classes alike: K
    assert score.deviation == 0.0
    assert scores.inception_score(certain[:1].repeat(9, 0), splits=3, seed=0).mean == pytest.approx(1.0, rel=1e-12)
    assert scores.inception_score(np.zeros((9, 4)), splits=3, seed=0).mean == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("n", "splits"), [(47, 10), (47, 1), (5, 5)])
def test_inception_score_is_its_formula(n, splits):
    logits = np.random.default_rng(0).standard_normal((n, 7)) * 3
    order = np.random.RandomState(5).permutation(n)
    p = special.softmax(logits[order], axis=1)
    bounds = [i * n // splits for i in range(splits + 1)]
    parts = [p[i:j] for i, j in itertools.pairwise(bounds)]
    expected = [np.exp(np.mean(special.rel_entr(part, part.mean(axis=0)).sum(axis=1))) for part in parts]
    score = scores.inception_score(logits, splits=splits, seed=5)
    np.testing.assert_allclose(score, [np.mean(expected), np.std(expected)], rtol=1e-12, atol=1e-14)


def test_kernel_distance_is_its_formula():
    """Compares with MMD^2 of Gretton et al. 2012, Eq. 3, computed pair by pair."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((8, 3)) + 1
    draws = np.random.RandomState(7)
    expected = []
    for _ in range(4):
        u, v = x[draws.choice(6, 5, replace=False)], y[draws.choice(8, 5, replace=False)]
        k = lambda p, q: (p @ q / 3 + 1) ** 3  # noqa: E731
        within = sum(k(s[i], s[j]) for s in (u, v) for i in range(5) for j in range(5) if i != j) / 20
        expected.append(within - 2 * sum(k(p, q) for p in u for q in v) / 25)
    score = scores.kernel_distance(x, y, subsets=4, subset_size=5, seed=7)
    assert score == pytest.approx((np.mean(expected), np.std(expected), 4, 5), rel=1e-12)


def test_kernel_distance_says_when_subsets_are_smaller():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((30, 4)), rng.standard_normal((20, 4))
    score = scores.kernel_distance(x, y, subsets=3, seed=0)
    assert (score.subsets, score.subset_size) == (3, 20)
    assert score == scores.kernel_distance(x, y, subsets=3, subset_size=20, seed=0)
    assert scores.kernel_distance(x, y, subsets=3, subset_size=19, seed=0).subset_size == 19


@pytest.mark.parametrize(("n", "m"), [(20, 20), (20, 30), (30, 20), (5, 30)])
def test_kernel_distance_has_no_error_where_a_subset_is_the_whole_set(n, m):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((n, 4)), rng.standard_normal((m, 4))
    score = scores.kernel_distance(x, y, subsets=3, subset_size=20, seed=0)
    assert score.deviation is None  # of 3 times the same set
    assert np.isfinite(score.mean)
    assert scores.kernel_distance(x, y, subsets=3, subset_size=4, seed=0).deviation > 0.0


def test_kernel_distance_is_unbiased():
    """Expects 0 on average for one distribution: a biased estimate would be larger by some k(x, x) / m, here 0.4."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 4000, 4))
    score = scores.kernel_distance(x, y, subsets=200, subset_size=20, seed=0)
    assert abs(score.mean) < 4 * score.deviation / np.sqrt(200)
    assert score.deviation < 0.4


BAD = np.full((5, 2), np.nan)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda x: scores.inception_score(x[:1], seed=0), "2 features at least; got 1"),
        (lambda x: scores.inception_score(x, seed=0), "splits=10 must be from 1 to the 5 images"),
        (lambda x: scores.inception_score(BAD, splits=2, seed=0), "finite"),
        (lambda x: scores.kernel_distance(x, x[:, :1], seed=0), r"of one D; got \[5, 2\] and \[5, 1\]"),
        (lambda x: scores.kernel_distance(x, x[:1], seed=0), "2 features at least; got 1"),
        (lambda x: scores.kernel_distance(x, BAD, seed=0), "finite"),
        (lambda x: scores.kernel_distance(x, x, subset_size=1, seed=0), "subset_size=1 at least 2"),
        (lambda x: scores.kernel_distance(x[0], x, seed=0), r"got \[2\] and \[5, 2\]"),
        (
            lambda x: scores.extrapolated_frechet_distance(x, gaussian(np.random.default_rng(0), 2), seed=0),
            "needs 8 features at least; got 5",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(score, message):
    with pytest.raises(ValueError, match=message):
        score(np.ones((5, 2)))


def test_a_score_is_named_for_its_samples():
    assert scores.score_name("FID", 50_000) == "FID"
    assert scores.score_name("FID", 5000) == "FID@5000"
