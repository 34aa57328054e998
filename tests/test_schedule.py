import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_jax.schedule import SCHEDULES, beta_schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_equal_the_official_ones(golden, name):
    betas = beta_schedule(name, 1000)
    assert betas.dtype == np.float64
    np.testing.assert_allclose(betas, golden("schedules")[f"betas/{name}"], rtol=1e-10)


@given(st.sampled_from(SCHEDULES), st.integers(2, 300), st.floats(1e-5, 0.1), st.floats(0.1, 0.9))
def test_schedules_have_t_variances_in_range_that_never_fall(name, num_timesteps, beta_start, beta_end):
    betas = beta_schedule(name, num_timesteps, beta_start=beta_start, beta_end=beta_end)
    assert betas.shape == (num_timesteps,)
    assert np.all((betas > 0) & (betas <= 1))
    assert np.all(np.diff(betas) >= -1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(name="lineer", num_timesteps=10), "'lineer'; choose one of linear"),
        (dict(name="linear", num_timesteps=1), "num_timesteps=1 must be at least 2"),
        (dict(name="linear", num_timesteps=10, beta_start=0.5, beta_end=0.1), "beta_start=0.5 and beta_end=0.1"),
        (dict(name="linear", num_timesteps=10, beta_end=1.0), "beta_end=1.0"),
    ],
)
def test_bad_settings_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        beta_schedule(**arguments)
