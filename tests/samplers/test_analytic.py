import numpy as np
import pytest
from recorded import exact_network, process, states

from ddpm_jax import diffusion, samplers
from ddpm_jax.samplers import analytic
from ddpm_jax.schedule import beta_schedule

MEAN, DEVIATION = 0.3, 0.5
ALPHAS_CUMPROD = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
MARGINAL = ALPHAS_CUMPROD * DEVIATION**2 + 1.0 - ALPHAS_CUMPROD  # the variance of x_t
GAMMA = (1.0 - ALPHAS_CUMPROD) / MARGINAL  # of the exact network less its mean


@pytest.mark.parametrize("timesteps", [np.arange(1000), np.array([0, 3, 40, 200, 650, 999]), np.array([7, 500])])
def test_for_a_gaussian_they_are_the_variances_of_the_true_reverse_steps(timesteps):
    """Those of x_s given x_t, from their joint Gaussian; the step to x_0 has that of x_0 given x_t."""
    variances = analytic.optimal_variances(
        process(), timesteps, analytic.x_0_variances(process(), GAMMA), last_levels=np.inf
    )
    lower = np.append(1.0, ALPHAS_CUMPROD[timesteps[:-1]])
    of_lower, of_x_t = np.append(DEVIATION**2, MARGINAL[timesteps[:-1]]), MARGINAL[timesteps]
    covariance = np.sqrt(ALPHAS_CUMPROD[timesteps] / lower) * of_lower
    np.testing.assert_allclose(variances, of_lower - covariance**2 / of_x_t, rtol=1e-3)


def test_they_stay_within_the_bounds_of_the_paper():
    ratio = (1.0 - ALPHAS_CUMPROD) / ALPHAS_CUMPROD
    for gamma, expected in ((1.5, np.zeros(1000)), (0.0, np.minimum(ratio, 1.0)), (-1.0, np.minimum(ratio, 1.0))):
        np.testing.assert_allclose(analytic.x_0_variances(process(), np.full(1000, gamma)), expected, rtol=1e-4)
    of = diffusion.make_process(beta_schedule("jsd", 10), mean_type="v")
    assert analytic.x_0_variances(of, np.ones(10))[-1] == 1.0  # nothing is known of x_0 in pure noise
    timesteps = np.array([50, 300, 600])
    free, bounded, twice = (
        analytic.optimal_variances(process(), timesteps, np.ones(1000), last_levels=levels)
        for levels in (np.inf, 1.0, 2.0)
    )
    moved = np.abs(np.random.default_rng(0).standard_normal(100_000)).mean() * np.sqrt(bounded[1])
    np.testing.assert_allclose(moved, 2.0 / 255.0, rtol=0.01)
    np.testing.assert_allclose(twice[1], 4.0 * bounded[1])
    np.testing.assert_array_equal(free[[0, 2]], bounded[[0, 2]])
    with pytest.raises(ValueError, match="at whole timesteps alone"):
        analytic.optimal_variances(process(), np.array([0.5, 3.0]), np.ones(1000))


def test_with_them_few_steps_keep_the_gaussian():
    """The chain is linear: the variance of x_t is the sum over x_T and the noises of squared factors."""
    timesteps = np.array([0, 100, 300, 600, 999])
    variances = analytic.optimal_variances(
        process(), timesteps, analytic.x_0_variances(process(), GAMMA), last_levels=np.inf
    )
    exact, basis = exact_network(process(), mean=[0.0], deviation=[DEVIATION]), np.eye(6, dtype=np.float32)
    basis = basis.reshape(6, 6, 1, 1, 1)
    errors = []
    for given in (variances, None):
        sampler = samplers.ancestral(process("fixedsmall"), timesteps, variances=given)
        before_last = states(sampler, exact, basis[0], noise=basis[1:], of=process("fixedsmall"))[-2]
        errors.append(abs((before_last**2).sum() / MARGINAL[0] - 1.0))
    assert errors[0] < 1e-3
    assert errors[1] > 0.05


def test_variances_that_do_not_fit_are_refused():
    for variances in (np.ones(2), np.array([0.1, -0.1, 0.1])):
        with pytest.raises(ValueError, match="The variances must be 3, one a timestep, each at least 0"):
            samplers.ancestral(process(), np.array([0, 5, 9]), variances=variances)
    with pytest.raises(ValueError, match="variances are of ancestral alone, and go with timesteps"):
        samplers.by_name("ddim", process(), timesteps=(0, 5), variances=(0.1, 0.1))
    with pytest.raises(ValueError, match="timesteps stand in place of steps and spacing"):
        samplers.by_name("ddim", process(), timesteps=(0, 5), steps=2)
