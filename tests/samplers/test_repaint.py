import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import exact_network, states

from ddpm_jax import diffusion, samplers, sampling
from ddpm_jax.samplers.repaint import schedule
from ddpm_jax.schedule import beta_schedule

PROCESS = diffusion.make_process(beta_schedule("linear", 24, beta_end=0.5), var_type="fixedsmall")
TIMESTEPS = np.array([0, 2, 5, 9, 14, 17, 20, 23])
KNOWN = np.random.default_rng(1).uniform(-1.0, 1.0, (2, 3, 4, 1)).astype(np.float32)
SOME = (np.arange(12) % 3 == 0).reshape(1, 3, 4, 1)


def draw(sampler, *, seed=0):
    """Draws two images, with the exact network of one Gaussian."""
    exact = exact_network(PROCESS, mean=[0.3], deviation=[0.5])
    keys = sampling.image_keys(seed, np.arange(2))
    return jax.jit(
        functools.partial(sampling.sample_loop, PROCESS, exact, shape=(3, 4, 1), clip=False, sampler=sampler)
    )(keys=keys)


def wrapped(sampler, mask, **settings):
    return samplers.repaint(PROCESS, sampler, known=KNOWN, mask=mask, **settings)


SAMPLERS = {
    "ancestral": samplers.ancestral(PROCESS),
    "ddim": samplers.ddim(PROCESS, TIMESTEPS, eta=0.5),
    "heun": samplers.heun(PROCESS, TIMESTEPS, churn=4.0),
    "predictor_corrector": samplers.predictor_corrector(PROCESS, TIMESTEPS),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_known_pixels_stay_and_without_any_it_is_the_sampler_itself(name):
    sampler = SAMPLERS[name]
    expected = draw(sampler)
    nothing_known = wrapped(sampler, np.zeros((1, 3, 4, 1), bool), num_resamples=1)
    np.testing.assert_array_equal(nothing_known.timesteps, sampler.timesteps)
    np.testing.assert_array_equal(draw(nothing_known), expected)
    x_0 = draw(wrapped(sampler, SOME, jump_length=2, num_resamples=3))
    known = np.broadcast_to(SOME, KNOWN.shape)
    np.testing.assert_array_equal(x_0[known], KNOWN[known])
    assert np.all(x_0[~known] != KNOWN[~known])
    assert np.isfinite(x_0).all()
    np.testing.assert_array_equal(draw(wrapped(sampler, ~np.zeros((2, 3, 4, 1), bool))), KNOWN)


def test_the_schedule_is_that_of_the_paper():
    """With j = 1 every step but the last is taken r times; T = 250 with j = r = 10 calls the network 2410 times."""
    assert schedule(3, 1, 2) == [(3, 2), (2, 3), (3, 2), (2, 1), (1, 2), (2, 1), (1, 0)]
    assert schedule(5, 2, 2) == [(5, 4), (4, 3), (3, 5), (5, 4), (4, 3), (3, 2), (2, 1), (1, 3), (3, 2), (2, 1), (1, 0)]
    assert schedule(3, 10, 10) == [(3, 2), (2, 1), (1, 0)]
    assert sum(end < begin for begin, end in schedule(250, 10, 10)) == 2410


def test_each_move_is_a_line_of_algorithm_1():
    """In NumPy, on a Gaussian, with an ancestral step to x_{t-1} and a jump of two levels."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 3, 4, 1), np.float32), rng.standard_normal((40, 2, 3, 4, 1), np.float32)
    ancestral = samplers.ancestral(PROCESS, TIMESTEPS[:5])
    sampler = wrapped(ancestral, SOME, jump_length=2, num_resamples=2)
    exact = exact_network(PROCESS, mean=[0.3], deviation=[0.5])
    made = states(sampler, exact, x, noise=noise[: sampler.num_steps], of=PROCESS)
    predict_fn = diffusion.make_predict_fn(PROCESS, exact, constrain=None)
    alphas_cumprod = np.append(1.0, np.cumprod(1.0 - np.linspace(1e-4, 0.5, 24))[TIMESTEPS[:5]])
    for (begin, end), before, after, z in zip(schedule(5, 2, 2), made[:-1], made[1:], noise, strict=False):
        if end > begin:
            kept = alphas_cumprod[end] / alphas_cumprod[begin]
            expected = np.sqrt(kept) * before + np.sqrt(1.0 - kept) * z
        else:
            of_known, unknown = alphas_cumprod[end], ancestral.step(predict_fn, before, begin - 1, z)[0]
            expected = np.where(SOME, np.sqrt(of_known) * KNOWN + np.sqrt(1.0 - of_known) * z, unknown)
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-5)


def test_with_more_resamples_an_unknown_pixel_comes_to_follow_a_known_one():
    """On two pixels with a correlation. All is linear, so noises of 0 give the mean."""
    correlation, known = 0.9, 1.0
    covariance = jnp.array([[1.0, correlation], [correlation, 1.0]])
    process = diffusion.make_process(beta_schedule("linear", 40, beta_end=0.4), var_type="fixedsmall")

    def exact(x_t, t):
        signal, noise = diffusion.signal_and_noise(process, t)  # [1, 1, 1, 1]
        marginal = signal[0, 0] ** 2 * covariance + noise[0, 0] ** 2 * jnp.eye(2)
        return noise * jnp.linalg.solve(marginal, x_t.ravel()).reshape(x_t.shape)

    errors = []
    for num_resamples in (1, 2, 5, 20):
        at_zero = (np.arange(2) == 0).reshape(1, 1, 2, 1)
        sampler = samplers.repaint(
            process, samplers.ancestral(process), known=np.full((1, 1, 2, 1), known, np.float32), mask=at_zero,
            jump_length=1, num_resamples=num_resamples,
        )  # fmt: skip
        mean = states(sampler, exact, np.zeros((1, 1, 2, 1), np.float32), of=process)[-1, 0, 0, 1, 0]
        errors.append(abs(mean - correlation * known))
    assert np.all(np.diff(errors) < 0.0)
    assert errors[0] > 0.2
    assert errors[-1] < 0.02


def test_what_cannot_be_wrapped_is_refused():
    ancestral = samplers.ancestral(PROCESS)
    with pytest.raises(ValueError, match="jump_length=0 and num_resamples=1 must be at least 1"):
        wrapped(ancestral, SOME, jump_length=0, num_resamples=1)
    with pytest.raises(ValueError, match="must be of booleans, true where a pixel is known, not of uint8"):
        wrapped(ancestral, SOME.astype(np.uint8))
    for sampler in (samplers.dpm_solver(PROCESS, TIMESTEPS), samplers.ddim_inversion(PROCESS, TIMESTEPS)):
        with pytest.raises(ValueError, match="needs a sampler that carries x_t alone, from x_T to x_0"):
            wrapped(sampler, SOME)


def test_image_to_image_is_q_then_p():
    x_0, keys = jnp.asarray(KNOWN), sampling.image_keys(0, np.arange(2))
    exact = exact_network(PROCESS, mean=[0.3], deviation=[0.5])
    draw_from = functools.partial(
        sampling.image_to_image, PROCESS, exact, x_0=x_0, keys=keys, clip=False, sampler=SAMPLERS["ddim"]
    )
    np.testing.assert_array_equal(draw_from(num_steps=0), x_0)
    alpha_cumprod = np.cumprod(1.0 - np.linspace(1e-4, 0.5, 24))[TIMESTEPS[2]]
    x_t = np.sqrt(alpha_cumprod) * KNOWN + np.sqrt(1.0 - alpha_cumprod) * sampling.noise(keys, 24, (3, 4, 1))
    expected = sampling.decode(
        PROCESS, exact, x_t=x_t, num_steps=3, keys=keys, clip=False, sampler=SAMPLERS["ddim"]
    )  # fmt: skip
    np.testing.assert_allclose(jax.jit(draw_from)(num_steps=3), expected, rtol=1e-4, atol=1e-5)
    fresh = draw(SAMPLERS["ddim"])
    distance = [np.abs(np.asarray(draw_from(num_steps=k) - fresh)).mean() for k in (1, 4, 8)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.05
