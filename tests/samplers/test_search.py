import itertools

import numpy as np
import pytest

from ddpm_jax import diffusion, samplers
from ddpm_jax.samplers import search
from ddpm_jax.schedule import beta_schedule

BETAS = beta_schedule("linear", 9, beta_end=0.6)
PROCESS = diffusion.make_process(BETAS)
ALPHAS_CUMPROD = np.cumprod(1.0 - BETAS)
RATIO = (1.0 - ALPHAS_CUMPROD) / ALPHAS_CUMPROD
MSE = 0.25 * RATIO / (0.25 + RATIO) * np.random.default_rng(0).uniform(1.0, 2.0, 9)  # about that of a Gaussian


def test_a_term_is_the_divergence_of_the_two_gaussians():
    terms = search.bound_terms(PROCESS, MSE)
    assert np.isinf(terms[np.tril_indices(9)]).all()
    for s, t in ((0, 1), (2, 7), (0, 8)):
        kept = ALPHAS_CUMPROD[t] / ALPHAS_CUMPROD[s]
        of_posterior = (1.0 - ALPHAS_CUMPROD[s]) / (1.0 - ALPHAS_CUMPROD[t]) * (1.0 - kept)
        of_mean = (np.sqrt(ALPHAS_CUMPROD[s]) * (1.0 - kept) / (1.0 - ALPHAS_CUMPROD[t])) ** 2 * MSE[t]
        grid = of_posterior + of_mean * np.linspace(0.0, 3.0, 3001)[1:]  # the variances that p might have
        nats = 0.5 * (np.log(grid / of_posterior) - 1.0 + (of_posterior + of_mean) / grid)
        np.testing.assert_allclose(terms[s, t], nats.min() / np.log(2.0), rtol=1e-4)


def test_the_timesteps_are_the_best_of_all_that_there_are():
    terms = search.bound_terms(PROCESS, MSE)
    found = search.best_timesteps(terms, range(2, 10))
    assert sorted(found) == list(range(2, 10))
    better = 0
    for count, timesteps in found.items():
        choices = [(0, *between, 8) for between in itertools.combinations(range(1, 8), count - 2)]
        best = min(choices, key=lambda choice: search.bound(terms, np.array(choice)))
        np.testing.assert_array_equal(timesteps, best)
        least, of_even = (search.bound(terms, each) for each in (best, samplers.spaced(PROCESS, count, "linspace")))
        assert least <= of_even
        better += least < of_even - 0.01  # bits/dim
    assert better >= 3


def test_for_gaussian_data_the_bound_is_the_information_that_the_chain_gains():
    """With equal pixels any timesteps gain it without loss; with unequal ones the one variance of all costs something,
    and the less the more steps there are.
    """

    def mse_and_information(deviation):
        information = 0.5 * np.log2(1.0 + deviation**2 / RATIO)
        return deviation**2 * RATIO / (deviation**2 + RATIO), information[0] - information[-1]

    mse, gained = mse_and_information(0.5)
    for timesteps in ([0, 8], [0, 1, 5, 8], np.arange(9)):
        np.testing.assert_allclose(search.bound(search.bound_terms(PROCESS, mse), timesteps), gained, rtol=1e-5)
    (mse_of_one, gained_of_one), (mse_of_other, gained_of_other) = map(mse_and_information, (0.1, 0.9))
    terms = search.bound_terms(PROCESS, 0.5 * (mse_of_one + mse_of_other))
    bounds = [search.bound(terms, timesteps) for timesteps in search.best_timesteps(terms, range(2, 10)).values()]
    assert np.all(np.diff(bounds) < 0.0)
    assert bounds[-1] > 0.5 * (gained_of_one + gained_of_other)


@pytest.mark.parametrize("counts", [[], [1], [2, 10]])
def test_counts_out_of_range_are_refused(counts):
    with pytest.raises(ValueError, match="must be numbers from 2 to the process's 9"):
        search.best_timesteps(np.ones((9, 9)), counts)
