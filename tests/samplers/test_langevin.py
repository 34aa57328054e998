import numpy as np
import pytest
from recorded import exact_network, process, states

from ddpm_jax import diffusion, samplers
from ddpm_jax.samplers.ancestral import posterior_weights

MEAN, DEVIATION = 0.3, 0.5
EXACT = dict(mean=[MEAN], deviation=[DEVIATION])


def test_annealed_langevin_dynamics_is_the_recursion_of_song_and_ermon():
    """On a Gaussian, in NumPy, in x / signal: with the score of the data and its noise, level after level."""
    timesteps, rng = np.array([0, 400, 900]), np.random.default_rng(0)
    x_t, noise = rng.standard_normal((2, 3, 4, 1), np.float32), rng.standard_normal((7, 2, 3, 4, 1), np.float32)
    sampler = samplers.langevin(process(), timesteps, num_updates=2, step_size=0.1)
    made = states(sampler, exact_network(process(), **EXACT), x_t, noise=noise)
    signal_squared = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))[timesteps]
    sigma = np.sqrt(1.0 / signal_squared - 1.0)
    x, expected, draws = x_t / np.sqrt(signal_squared[-1]), [], iter(noise)
    for r in sigma[::-1]:
        for _ in range(2):
            score = -(x - MEAN) / (DEVIATION**2 + r**2)
            x = x + 0.05 * r**2 * score + np.sqrt(0.1) * r * next(draws)
            expected.append(x)
    expected.append(x - sigma[0] ** 2 * (x - MEAN) / (DEVIATION**2 + sigma[0] ** 2))
    level = np.sqrt(signal_squared[[2, 1, 1, 0, 0, 0]])  # each level's last update leads to the next
    np.testing.assert_allclose(made[1:7], np.stack(expected[:6]) * level.reshape(-1, 1, 1, 1, 1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made[7], expected[6], rtol=1e-4, atol=1e-4)


def test_annealed_langevin_dynamics_ends_near_the_gaussian():
    """Every update is linear, so the variance is the sum over x_T and the noises of squared coefficients.

    It is that of the closed form of these updates, which tends to the data's with smaller steps and more of them.
    """
    timesteps = samplers.spaced(process(), 40, "logsnr")
    sampler = samplers.langevin(process(), timesteps, num_updates=10, step_size=0.2)
    count = sampler.num_steps
    assert count == 401
    basis = np.eye(2 + count, dtype=np.float32).reshape(2 + count, 2 + count, 1, 1, 1)
    x_0 = states(sampler, exact_network(process(), **EXACT), basis[1], noise=basis[2:])[-1].ravel()
    np.testing.assert_allclose(x_0[0], MEAN, atol=0.02)
    np.testing.assert_allclose(((x_0[1:] - x_0[0]) ** 2).sum(), final_variance(40, 10, 0.2), rtol=2e-3)
    np.testing.assert_allclose(final_variance(200, 100, 0.05), DEVIATION**2, rtol=0.03)


def final_variance(num_levels, num_updates, step_size):
    """Follows the variance of x / signal through all updates, from a standard normal x_T on."""
    first, last = np.sqrt(1.0 / np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))[[0, 999]] - 1.0)
    variance = last**2 + 1.0
    for r in np.geomspace(last, first, num_levels):
        for _ in range(num_updates):
            kept = 1.0 - step_size * r**2 / (2.0 * (DEVIATION**2 + r**2))
            variance = variance * kept**2 + step_size * r**2
    return variance * (DEVIATION**2 / (DEVIATION**2 + first**2)) ** 2


def test_a_predictor_without_corrections_is_ancestral_sampling():
    timesteps, rng = np.array([0, 100, 500, 999]), np.random.default_rng(0)
    x_t, noise = rng.standard_normal((2, 3, 4, 1), np.float32), rng.standard_normal((4, 2, 3, 4, 1))
    exact = exact_network(process(), **EXACT)
    for var_type in ("fixedsmall", "fixedlarge"):
        of = process(var_type)
        made, expected = (
            states(sampler, exact, x_t, noise=noise, of=of)
            for sampler in (
                samplers.predictor_corrector(of, timesteps, num_corrections=0),
                samplers.ancestral(of, timesteps),
            )
        )
        np.testing.assert_allclose(made, expected, rtol=1e-6)


def test_the_corrector_is_algorithm_5_of_song_et_al():
    """For each image by itself: its step depends on the norms of its own score and noise."""
    timesteps, rng = np.array([0, 300, 999]), np.random.default_rng(0)
    sampler = samplers.predictor_corrector(process(), timesteps, num_corrections=2, signal_to_noise=0.3)
    assert sampler.timesteps.tolist() == [0, 0, 0, 300, 300, 300, 999, 999, 999]
    x_t, noise = rng.standard_normal((2, 3, 4, 1), np.float32), rng.standard_normal((9, 2, 3, 4, 1), np.float32)
    made = states(sampler, exact_network(process(), **EXACT), x_t, noise=noise)
    alpha_cumprod = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))
    for k, t, lower in ((0, 999, 300), (1, 999, 300), (3, 300, 0), (7, 0, None)):
        a, x, z = alpha_cumprod[t], made[k], noise[k]
        kept = a / (1.0 if lower is None else alpha_cumprod[lower])  # 1 - beta of the step to the next timestep
        score = -(x - np.sqrt(a) * MEAN) / (a * DEVIATION**2 + 1.0 - a)
        norms = [np.linalg.norm(each.reshape(2, -1), axis=1).reshape(2, 1, 1, 1) for each in (z, score)]
        size = 2.0 * kept * (0.3 * norms[0] / norms[1]) ** 2
        np.testing.assert_allclose(made[k + 1], x + size * score + np.sqrt(2.0 * size) * z, rtol=1e-3, atol=1e-4)
    of_x_0, of_x_t, deviation = posterior_weights(process(), timesteps, large=True)[2]  # and then the predictor
    a, x = alpha_cumprod[999], made[2]
    x_0 = MEAN + np.sqrt(a) * DEVIATION**2 * (x - np.sqrt(a) * MEAN) / (a * DEVIATION**2 + 1.0 - a)
    np.testing.assert_allclose(made[3], of_x_0 * x_0 + of_x_t * x + deviation * noise[2], rtol=1e-4, atol=1e-5)


def test_corrections_bring_few_steps_nearer_to_the_gaussian():
    timesteps, rng = samplers.spaced(process("fixedsmall"), 10, "linspace"), np.random.default_rng(0)
    exact, x_t = exact_network(process(), **EXACT), rng.standard_normal((500, 4, 4, 1), np.float32)
    deviations = []
    for num_corrections in (0, 3):
        sampler = samplers.predictor_corrector(process("fixedsmall"), timesteps, num_corrections=num_corrections)
        noise = rng.standard_normal((sampler.num_steps, *x_t.shape), np.float32)
        deviations.append(states(sampler, exact, x_t, noise=noise, of=process("fixedsmall"))[-1].std())
    without, with_corrections = np.abs(np.array(deviations) - DEVIATION)
    assert with_corrections < 0.7 * without


def test_learned_variances_are_not_used():
    learned = diffusion.make_process(1.0 - np.full(10, 0.9), var_type="learned")
    small = diffusion.make_process(1.0 - np.full(10, 0.9), var_type="fixedsmall")
    x_t, noise = np.ones((1, 2, 2, 1), np.float32), np.ones((6, 1, 2, 2, 1))
    zeros = lambda channels: lambda x, t: np.zeros((1, 2, 2, channels), np.float32)  # noqa: E731
    made, expected = (
        states(samplers.predictor_corrector(of, np.array([0, 4, 9])), zeros(channels), x_t, noise=noise, of=of)
        for of, channels in ((learned, 2), (small, 1))
    )
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (samplers.langevin, dict(num_updates=0), "num_updates=0 must be at least 1"),
        (samplers.langevin, dict(step_size=0.0), "step_size=0.0 above 0"),
        (samplers.predictor_corrector, dict(num_corrections=-1), "num_corrections=-1 must be at least 0"),
        (samplers.predictor_corrector, dict(signal_to_noise=0.0), "signal_to_noise=0.0 above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(process(), np.array([0, 5, 9]), **settings)
