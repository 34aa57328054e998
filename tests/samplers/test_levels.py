import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import process

from ddpm_jax import diffusion, samplers
from ddpm_jax.samplers import levels
from ddpm_jax.schedule import beta_schedule


def test_the_spacings_are_those_of_their_sources(golden):
    recorded = golden("samplers")
    for count in (10, 20):
        np.testing.assert_array_equal(
            samplers.spaced(process(), count, "uniform"), recorded[f"ddim/uniform/K{count}/seq"]
        )
    for count in (10, 13, 20, 100):
        name = f"ddim/quad/T1000_K{count}/seq" if count == 100 else f"ddim/quad/K{count}/seq"
        quadratic = samplers.spaced(process(), count, "quadratic")
        np.testing.assert_array_equal(quadratic, np.unique(recorded[name]))
    chain = "diffusers/ddpm/K10/{}/fixed_{}/clip1/timesteps"
    for spacing, size in (("linspace", "large"), ("trailing", "small")):
        np.testing.assert_array_equal(
            samplers.spaced(process(), 10, spacing), recorded[chain.format(spacing, size)][::-1]
        )


def test_spacings_by_noise_take_equal_steps_of_it():
    noise = process().sqrt_one_minus_alphas_cumprod / process().sqrt_alphas_cumprod
    for spacing, of_ratio in (("logsnr", np.log), ("karras", lambda ratio: ratio ** (1 / 7))):
        timesteps = samplers.spaced(process(), 9, spacing)
        assert (timesteps[0], timesteps[-1]) == (0.0, 999.0)
        steps = np.diff(of_ratio(np.interp(timesteps, np.arange(1000), noise)))
        np.testing.assert_allclose(steps, steps.mean(), rtol=5e-3)  # the noise itself is interpolated here


@pytest.mark.parametrize("spacing", samplers.SPACINGS)
def test_every_spacing_rises_and_may_take_all(spacing):
    of = diffusion.make_process(beta_schedule("linear", 100, beta_end=0.2))
    for count in (2, 3, 7, 64, 99, 100):
        timesteps = samplers.spaced(of, count, spacing)
        assert len(timesteps) == count or spacing == "quadratic"
        assert 0 <= timesteps[0] < timesteps[-1] <= 99
        assert np.all(np.diff(timesteps) > 0)
    if spacing in ("linspace", "uniform", "trailing"):
        np.testing.assert_array_equal(timesteps, np.arange(100))


@pytest.mark.parametrize(("count", "spacing"), [(1, "uniform"), (0, "trailing"), (1001, "linspace")])
def test_an_impossible_number_of_steps_is_refused(count, spacing):
    with pytest.raises(
        ValueError, match=rf"steps={count} with spacing='{spacing}' must be from . to the process's 1000"
    ):
        samplers.spaced(process(), count, spacing)
    assert samplers.spaced(process(), 1, "trailing").tolist() == [999]


def test_noise_cannot_be_spaced_where_the_process_ends_in_nothing_else():
    of = diffusion.make_process(beta_schedule("jsd", 10), mean_type="v")
    with pytest.raises(ValueError, match="needs a schedule that does not end in pure noise; jsd does"):
        samplers.spaced(of, 5, "logsnr")


@pytest.mark.parametrize("timesteps", [[], [3, 3], [5, 2], [-1, 4], [4, 1000], [0.5, 999.5], [[1, 2]]])
def test_timesteps_that_do_not_fit_are_refused(timesteps):
    for make in (samplers.ddim, samplers.ancestral, samplers.heun, samplers.dpm_solver, samplers.langevin):
        with pytest.raises(ValueError, match="timesteps must rise from 0 or more to at most 999"):
            make(process(), np.array(timesteps))


def test_between_whole_timesteps_log_alpha_bar_is_interpolated(golden):
    """As DPM-Solver's authors do, whose t is (ours + 1) / T; in NumPy beforehand and while sampling."""
    recorded = golden("samplers")
    t = recorded["dpm_solver/noise_schedule/t"] * 1000.0 - 1.0
    log_signal = recorded["dpm_solver/noise_schedule/log_alpha"][(inside := (t >= 0.0) & (t <= 999.0))]
    log_snr, t = recorded["dpm_solver/noise_schedule/lambda"][inside], t[inside]
    level = levels.levels_at(process(), t)
    np.testing.assert_allclose(np.log(level.signal), log_signal, rtol=1e-5)
    np.testing.assert_allclose(level.log_snr, log_snr, atol=1e-5)
    np.testing.assert_allclose(levels.timesteps_at(process(), level.ratio), t, atol=1e-6)
    signal, noise = jax.jit(diffusion.signal_and_noise)(process(), jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(signal.ravel(), level.signal, rtol=1e-5)
    np.testing.assert_allclose(noise.ravel(), level.noise, rtol=1e-4)  # t itself is rounded


def test_at_whole_timesteps_it_is_the_table():
    whole = np.arange(1000)
    level = levels.levels_at(process(), whole)
    signal, noise = diffusion.signal_and_noise(process(), jnp.asarray(whole, jnp.float32))
    for table, *others in (
        (process().sqrt_alphas_cumprod, level.signal, signal.ravel()),
        (process().sqrt_one_minus_alphas_cumprod, level.noise, noise.ravel()),
    ):
        for other in others:
            np.testing.assert_allclose(other, table, rtol=1e-6)
