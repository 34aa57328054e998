import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recorded import error, exact_network, network, process, states

from ddpm_jax import diffusion, samplers, sampling
from ddpm_jax.schedule import beta_schedule


@pytest.mark.parametrize("chain", ["ddim/K10/leading/eta0.3/clip1_rederived", "ddim/K10/leading/eta1.0/clip0"])
def test_the_steps_equal_those_of_diffusers(golden, chain):
    recorded = golden("samplers")
    timesteps = recorded[f"diffusers/{chain}/timesteps"][::-1]
    np.testing.assert_array_equal(timesteps, samplers.spaced(process(), 10, "uniform"))
    sampler = samplers.ddim(process(), timesteps, eta=float(chain.split("eta")[1].split("/")[0]))
    x = recorded[f"diffusers/{chain}/x"]
    made = states(sampler, network(recorded), x[0], noise=recorded["diffusers/noise"], clip="clip1" in chain)
    assert error(made, x) < 1e-5


@pytest.mark.parametrize("chain", ["uniform/K13/eta0.4", "quad/K10/eta1.0", "uniform/K10/eta0.0"])
def test_the_steps_equal_those_of_its_authors(golden, chain):
    recorded = golden("samplers")
    spacing, count, eta = chain.split("/")
    sampler = samplers.ddim(process(), recorded[f"ddim/{spacing}/{count}/seq"], eta=float(eta[3:]))
    made = states(sampler, network(recorded), recorded["ddim/x_T"], noise=recorded["ddim/noise"])
    assert error(made, recorded[f"ddim/{chain}/x"]) < 1e-5


def test_without_eta_it_is_euler_s_method_in_x_over_signal(golden):
    recorded = golden("samplers")
    chain = "diffusers/euler/K20/karras0"
    signal = 1.0 / np.sqrt(1.0 + recorded[f"{chain}/sigmas"] ** 2)
    x = recorded[f"{chain}/x"] * signal.reshape(-1, 1, 1, 1, 1)
    timesteps = np.linspace(0, 999, 20)  # most of them between whole ones
    np.testing.assert_allclose(recorded[f"{chain}/timesteps"][::-1], timesteps, rtol=1e-5)
    assert error(states(samplers.ddim(process(), timesteps), network(recorded), x[0]), x) < 1e-4


def test_with_eta_of_1_and_all_steps_it_is_ancestral_sampling_with_fixedsmall():
    """Compares the coefficients of x_0, x_t and the noise in every step, which are read off three images."""
    small = process("fixedsmall")
    x_t, x_0, noise = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1, 1)
    shapes = dict(x_t=x_t, noise=noise)

    def coefficients(sampler, i):
        def predict_fn(x_t, t):
            signal, noise_level = diffusion.signal_and_noise(small, t)
            eps = (x_t - signal * x_0) / noise_level
            mean, variance, log_variance = diffusion.q_posterior(small, x_0=x_0, x_t=x_t, t=t)
            return diffusion.Prediction(x_0=x_0, eps=eps, mean=mean, variance=variance, log_variance=log_variance)

        return sampler.read(sampler.step(predict_fn, sampler.init(shapes["x_t"]), i, shapes["noise"])[0]).ravel()

    steps = jnp.arange(1000)
    ours, ancestral = (
        jax.jit(jax.vmap(functools.partial(coefficients, sampler)))(steps)
        for sampler in (samplers.ddim(small, eta=1.0), samplers.ancestral(small))
    )
    np.testing.assert_allclose(ours, ancestral, rtol=2e-5, atol=3e-5)  # 1 / noise is 100 at t = 0
    np.testing.assert_allclose(ours[:, 2], ancestral[:, 2], rtol=2e-5)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_gaussian_data_gets_the_moments_of_the_closed_form(golden, eta):
    """Every step is linear, so the result is one of x_T and the noises: an image shows the coefficient of each."""
    recorded = golden("samplers")
    oracle = {name: recorded[f"gaussian_oracle/{name}"] for name in ("mu", "s")}
    folder = "gaussian_oracle/iddpm/K10"
    timesteps = recorded[f"{folder}/timesteps"]
    np.testing.assert_array_equal(timesteps, samplers.spaced(process(), 10, "linspace"))
    basis = np.eye(12, dtype=np.float32).reshape(12, 12, 1, 1, 1) * np.ones(3, np.float32)  # nothing, x_T, ten noises
    sampler = samplers.ddim(process(), timesteps, eta=eta)
    exact = exact_network(process(), mean=oracle["mu"], deviation=oracle["s"])
    x_0 = states(sampler, exact, basis[1], noise=basis[2:])[-1][:, 0, 0]  # [12, C]
    moments = f"{folder}/moments/eta{eta:g}"
    np.testing.assert_allclose(((x_0[1:] - x_0[0]) ** 2).sum(axis=0), recorded[f"{moments}/var"], rtol=1e-4)
    np.testing.assert_allclose(x_0[0], recorded[f"{moments}/mean"], atol=1e-5)
    if not eta:
        np.testing.assert_allclose(x_0[1] - x_0[0], recorded[f"{folder}/ddim_scale"], rtol=1e-4)


def test_inversion_takes_the_recorded_steps(golden):
    recorded = golden("samplers")
    of, folder = diffusion.make_process(recorded["improved_chains/betas"]), "improved_chains/respaced_4_3_3"
    sampler = samplers.ddim_inversion(of, recorded[f"{folder}/timestep_map"])
    x_0 = recorded[f"{folder}/inversion/x_start"]  # which the source takes for the x_t of the first timestep
    made = states(sampler, network(recorded), x_0, of=of, start=sampler.num_steps - 2)
    assert error(made[1:], recorded[f"{folder}/inversion/ddim_reverse"][:-1]) < 1e-5


def test_an_encoded_image_is_decoded_again():
    """The error halves where the steps double, and the latents of Gaussian data are standard normal."""
    exact = exact_network(process(), mean=[0.3], deviation=[0.5])
    x_0 = np.linspace(-1.0, 1.0, 24, dtype=np.float32).reshape(1, 4, 6, 1)
    errors = []
    for count in (50, 100, 200):
        timesteps = samplers.spaced(process(), count, "linspace")
        latent = sampling.encode(process(), exact, x_0=x_0, timesteps=timesteps)
        decoded = sampling.decode(
            process(), exact, x_t=latent, num_steps=count, keys=sampling.image_keys(0, np.arange(1)), clip=False,
            sampler=samplers.ddim(process(), timesteps),
        )  # fmt: skip
        errors.append(np.abs(decoded - x_0).max())
    np.testing.assert_allclose(latent, (x_0 - 0.3) / 0.5, atol=0.06)
    assert errors[0] < 0.2
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2.0, atol=0.3)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_an_eta_that_is_no_share_is_refused(eta):
    with pytest.raises(ValueError, match="eta=.+ must be from 0 to 1"):
        samplers.ddim(process(), eta=eta)


def test_a_process_that_ends_in_pure_noise_is_sampled():
    """There x_T says nothing of x_0, and the first step goes by the prediction alone."""
    of = diffusion.make_process(beta_schedule("jsd", 10), mean_type="xstart")
    x_t = np.random.default_rng(0).standard_normal((1, 4, 4, 1)).astype(np.float32)
    made = states(samplers.ddim(of), lambda x, t: jnp.full_like(x, 0.5), x_t, of=of)
    np.testing.assert_allclose(made[1], np.sqrt(0.1) * 0.5 + np.sqrt(0.9) * x_t, rtol=1e-5)
    np.testing.assert_array_equal(made[-1], np.full_like(x_t, 0.5))
