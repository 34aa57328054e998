import numpy as np
import pytest
from recorded import error, exact_network, network, process, states

from ddpm_jax import diffusion, samplers
from ddpm_jax.samplers import levels


@pytest.mark.parametrize("chain", ["K10/karras0", "K20/karras1"])
def test_the_steps_equal_those_of_diffusers(golden, chain):
    """Which lives in x / signal, and counts each call of the network as a step."""
    recorded, folder = golden("samplers"), f"diffusers/heun/{chain}"
    timesteps = np.unique(recorded[f"{folder}/timesteps"]).astype(float)
    if chain.endswith("karras0"):
        np.testing.assert_allclose(timesteps, np.linspace(0, 999, 10))
    x, sigma = recorded[f"{folder}/x"], np.unique(recorded[f"{folder}/sigmas"])[::-1]
    x = np.concatenate([x[:-1:2], x[-1:]]) / np.sqrt(1.0 + sigma**2).reshape(-1, 1, 1, 1, 1)
    assert error(states(samplers.heun(process(), timesteps), network(recorded), x[0]), x) < 1e-4


@pytest.fixture(scope="module")
def continuous():
    """The linear schedule in continuous time, as a process of many steps, whose t / (its last) is Karras et al.'s t."""
    t = np.arange(20_000) / 19_999
    log_signal = -(19.9 * t**2 / 2.0 + 0.1 * t)
    log_signal[0] = -1e-9
    return diffusion.make_process(1.0 - np.exp(np.diff(log_signal, prepend=0.0)))


@pytest.mark.parametrize("chain", ["edm_heun", "edm_heun_churn", "ablation_iddpm_steps_heun"])
def test_the_image_equals_that_of_its_authors(golden, continuous, chain):
    recorded = golden("samplers")
    steps_of = "edm_heun" if chain.endswith("churn") else chain
    sigma = recorded[f"edm/vp/{steps_of}/network_sigma"]
    sigma = np.append(sigma[0], sigma[1::2])[::-1]  # of the second call of each step, and the first of all
    settings = dict(churn=8.0, churn_from=0.05, churn_to=50.0, churn_noise=1.003) if chain.endswith("churn") else {}
    sampler = samplers.heun(continuous, levels.timesteps_at(continuous, sigma), **settings)
    denoise_fn = network(recorded)
    x_t = recorded["edm/latents"] * sigma[-1] / np.sqrt(1.0 + sigma[-1] ** 2)
    made = states(
        sampler, lambda x, t: denoise_fn(x, t * (999 / 19_999)), x_t, noise=recorded["edm/noise"], of=continuous
    )  # fmt: skip
    assert error(made[-1], recorded[f"edm/vp/{chain}/x"]) < 2e-5


def test_added_noise_is_never_more_than_the_process_has():
    """Else the network would be asked about a timestep that there is not: the first step is then one without churn."""
    timesteps, x_t = samplers.spaced(process(), 5, "karras"), np.full((1, 2, 2, 1), 0.7, np.float32)
    exact, noise = exact_network(process(), mean=[0.3], deviation=[0.5]), np.ones((5, *x_t.shape))
    plain, churned = (
        states(samplers.heun(process(), timesteps, churn=churn), exact, x_t, noise=noise) for churn in (0.0, 4.0)
    )
    np.testing.assert_allclose(churned[1], plain[1], rtol=1e-5)
    assert np.abs(churned[2] - plain[2]).max() > 0.1
    with pytest.raises(ValueError, match="churn=-1.0 must be at least 0"):
        samplers.heun(process(), timesteps, churn=-1.0)


def test_added_noise_keeps_the_gaussian():
    """With the exact denoiser the variance of x_0, over x_T and all noises, stays that of the data."""
    timesteps, deviation = samplers.spaced(process(), 60, "karras"), 0.5
    exact = exact_network(process(), mean=[0.0], deviation=[deviation])
    basis = np.eye(61, dtype=np.float32).reshape(61, 61, 1, 1, 1)
    for churn in (0.0, 20.0):
        x_0 = states(samplers.heun(process(), timesteps, churn=churn), exact, basis[0], noise=basis[1:])[-1]
        np.testing.assert_allclose((x_0**2).sum(), deviation**2, rtol=0.05)
