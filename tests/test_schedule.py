import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_jax.schedule import SCHEDULES, beta_schedule, respaced_betas, respaced_timesteps


@pytest.mark.parametrize("name", SCHEDULES[:-1])
def test_schedules_equal_the_official_ones(golden, name):
    betas = beta_schedule(name, 1000)
    assert betas.dtype == np.float64
    np.testing.assert_allclose(betas, golden("schedules")[f"betas/{name}"], rtol=1e-10)


@pytest.mark.parametrize("num_timesteps", [10, 100, 1000, 4000])
def test_the_cosine_schedule_equals_that_of_improved_ddpm(golden, num_timesteps):
    betas = beta_schedule("cosine", num_timesteps)
    np.testing.assert_allclose(betas, golden("respacing")[f"betas/cosine_T{num_timesteps}"], rtol=1e-10)


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


def spacings(arrays):
    """Lists the recorded cases as key, T and sections."""
    keys = [key.removesuffix("/timesteps") for key in arrays if key.endswith("/timesteps")]
    return [(key, int(key.split("_")[0].removeprefix("space/T")), str(arrays[f"{key}/section_counts"])) for key in keys]


def test_respaced_timesteps_equal_those_of_improved_ddpm(golden):
    arrays = golden("respacing")
    cases = spacings(arrays)
    assert len(cases) == 13
    for key, num_timesteps, sections in cases:
        np.testing.assert_array_equal(respaced_timesteps(num_timesteps, sections), arrays[f"{key}/timesteps"])


def test_respaced_betas_equal_those_of_improved_ddpm(golden):
    arrays = golden("respacing")
    for key, num_timesteps, _ in spacings(arrays):
        linear = np.linspace(0.1, 20.0, num_timesteps) / num_timesteps  # as that code scales it with T
        for name, betas in (("linear", linear), ("cosine", beta_schedule("cosine", num_timesteps))):
            found = respaced_betas(betas, arrays[f"{key}/timesteps"])
            np.testing.assert_allclose(found, arrays[f"{key}/{name}/betas"], rtol=1e-9)


@given(st.data())
def test_respacing_keeps_the_noise_levels_of_the_timesteps_that_it_takes(data):
    num_timesteps = data.draw(st.integers(2, 300))
    sections = data.draw(st.integers(1, min(5, num_timesteps)))
    counts = data.draw(st.lists(st.integers(1, num_timesteps // sections), min_size=sections, max_size=sections))
    timesteps = respaced_timesteps(num_timesteps, ",".join(map(str, counts)))
    assert len(timesteps) == sum(counts)
    assert np.all(np.diff(timesteps) > 0)
    assert timesteps[0] == 0
    assert timesteps[-1] <= num_timesteps - 1
    betas = beta_schedule("quad", num_timesteps)
    np.testing.assert_allclose(
        np.cumprod(1.0 - respaced_betas(betas, timesteps)), np.cumprod(1.0 - betas)[timesteps], rtol=1e-10
    )


def test_taking_every_timestep_changes_nothing():
    betas, timesteps = beta_schedule("cosine", 50), respaced_timesteps(50, "50")
    np.testing.assert_array_equal(timesteps, np.arange(50))
    np.testing.assert_array_equal(respaced_timesteps(50, "ddim50"), np.arange(50))
    np.testing.assert_allclose(respaced_betas(betas, timesteps), betas, rtol=1e-12)


@pytest.mark.parametrize(
    ("num_timesteps", "sections", "message"),
    [
        (1000, "ddim300", "'ddim300': no whole stride takes 300 of 1000"),
        (10, "11", "of a section of 10 timesteps, 1 to 10 can be taken, not 11"),
        (10, "6,6", "of a section of 5 timesteps, 1 to 5 can be taken, not 6"),
        (10, "0", "1 to 10 can be taken, not 0"),
        *(
            (10, sections, "must be written like '250', '10,10,20' or 'ddim50'")
            for sections in ("", "5,", "-1", "ddim")
        ),
    ],
)
def test_timesteps_that_cannot_be_taken_are_refused(num_timesteps, sections, message):
    with pytest.raises(ValueError, match=message):
        respaced_timesteps(num_timesteps, sections)
