import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from ddpm_jax import parallel
from ddpm_jax.metrics import neighbours


def pieces(images, size):
    return (images[start : start + size] for start in range(0, len(images), size))


def brute_force(queries, references, k):
    """Sorts all distances, in int64 and stably: of equals the first."""
    difference = queries[:, None].astype(np.int64) - references[None]
    squared = np.square(difference).sum(axis=(2, 3, 4))
    indices = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.sqrt(np.take_along_axis(squared, indices, axis=1).astype(np.float64)), indices


@settings(max_examples=8)
@given(st.integers(1, 7), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_neighbours_are_exact_whatever_the_pieces_and_ties_come_in_order(batch_size, piece_size, k, seed):
    rng = np.random.default_rng(seed)
    queries = rng.integers(0, 2, (7, 2, 3, 1), dtype=np.uint8)  # so few values that most distances are tied
    references = rng.integers(0, 2, (12, 2, 3, 1), dtype=np.uint8)
    result = neighbours.nearest(queries, pieces(references, piece_size), k=k, batch_size=batch_size)
    distances, indices = brute_force(queries, references, k)
    np.testing.assert_array_equal(result.indices, indices)
    np.testing.assert_array_equal(result.distances, distances)


def test_neighbours_of_pictures_equal_those_of_scipy():
    rng = np.random.default_rng(0)
    queries, references = (rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8) for n in (9, 50))
    result = neighbours.nearest(queries, pieces(references, 16), k=50, batch_size=4, map_fn=parallel.map_batches)
    flat = [images.reshape(len(images), -1).astype(np.float64) for images in (queries, references)]
    expected = cdist(*flat)
    np.testing.assert_allclose(result.distances, np.sort(expected, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(result.indices, np.argsort(expected, axis=1))


@pytest.mark.parametrize("side", [148, 256])  # below and above what 32 bits hold
def test_the_largest_distances_of_large_images_are_exact(side):
    """Compares squared distances beyond 2^31 and 2^32, beside which one unit of one pixel still counts."""
    white = np.full((1, side, side, 3), 255, np.uint8)
    references = np.zeros((4, side, side, 3), np.uint8)
    references[1, 5, 5, 0] = 1
    references[2] = 254
    references[3] = references[1]
    result = neighbours.nearest(white, pieces(references, 2), k=4)
    np.testing.assert_array_equal(result.indices, [[2, 1, 3, 0]])
    values = side * side * 3
    squared = [values, 255**2 * values - 509, 255**2 * values - 509, 255**2 * values]
    np.testing.assert_array_equal(np.round(result.distances**2), [squared])


def test_a_crop_compares_the_centre_alone():
    references = np.random.default_rng(0).integers(0, 256, (20, 7, 8, 1), dtype=np.uint8)
    queries = 255 - references
    queries[:, 2:5, 2:5] = references[:, 2:5, 2:5]
    result = neighbours.nearest(queries, [references], k=2, crop=3)
    np.testing.assert_array_equal(result.indices[:, 0], np.arange(20))
    assert np.all(result.distances[:, 0] == 0.0)
    assert np.all(neighbours.nearest(queries, [references], k=2).distances[:, 0] > 0.0)


def test_planted_copies_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    samples = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    samples[3] = training[150]
    samples[4] = np.clip(training[151].astype(int) + rng.integers(-3, 4, (8, 8, 3)), 0, 255)  # nearly
    training[199] = training[150]  # an image that is there twice is copied all the same
    result = neighbours.nearest(samples, pieces(training, 64), k=3)
    copies = neighbours.copy_ratios(result.distances) < neighbours.COPY_RATIO
    np.testing.assert_array_equal(np.flatnonzero(copies), [3, 4])
    np.testing.assert_array_equal(result.indices[[3, 3, 4], [0, 1, 0]], [150, 199, 151])


def test_the_copy_ratio_is_relative_to_the_second_nearest():
    distances = np.array([[1.0, 4.0, 9.0], [2.0, 4.0, 4.0], [0.0, 0.0, 1.0], [3.0, 3.0, 3.0]])
    np.testing.assert_array_equal(neighbours.copy_ratios(distances), [0.25, 0.5, 0.0, 1.0])


def test_repeats_are_counted():
    samples = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), dtype=np.uint8)
    assert neighbours.num_repeats(samples) == 0
    assert neighbours.num_repeats(samples[[0, 1, 1, 2, 0, 0]]) == 3


@pytest.mark.parametrize(
    ("references", "settings", "message"),
    [
        (np.zeros((2, 8, 8, 1), np.uint8), dict(k=3), "There are 2 reference images, fewer than the 3 nearest"),
        (np.zeros((2, 8, 8, 3), np.uint8), dict(k=1), "64 values cannot be compared with some of 192"),
        (np.zeros((2, 8, 8, 1), np.uint8), dict(k=1, crop=9), "at least 9 wide and high; got uint8 8x8"),
        (np.zeros((2, 8, 8, 1)), dict(k=1), "must be uint8"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(references, settings, message):
    with pytest.raises(ValueError, match=message):
        neighbours.nearest(np.zeros((1, 8, 8, 1), np.uint8), [references], **settings)
