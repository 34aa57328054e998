import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import fixed_denoise_fn
from recorded import error, network, states
from recorded import process as recorded_process

from ddpm_jax import diffusion, samplers, sampling
from ddpm_jax.samplers.ancestral import posterior_weights
from ddpm_jax.schedule import beta_schedule


@pytest.mark.parametrize(("var_type", "official"), [("fixedlarge", "eps_fixedlarge"), ("fixedsmall", "old")])
def test_the_steps_with_known_noise_equal_the_official_ones(golden, var_type, official):
    chain = golden("chain")
    process = diffusion.make_process(chain["betas"], var_type=var_type)
    predict_fn = diffusion.make_predict_fn(
        process, fixed_denoise_fn(chain["denoise_coef"]), constrain=diffusion.clip_x_0
    )
    sampler = samplers.ancestral(process)
    assert sampler.num_steps == 20
    np.testing.assert_array_equal(sampler.timesteps, np.arange(20))
    step = jax.jit(functools.partial(sampler.step, predict_fn))
    first, *noise = chain["noise_sequence"]
    carry = sampler.init(jnp.asarray(first))
    for k, (i, eps) in enumerate(zip(reversed(range(20)), noise, strict=True)):
        carry, x_0 = step(carry, i, eps)
        if official == "eps_fixedlarge":
            np.testing.assert_allclose(sampler.read(carry), chain[f"{official}/trajectory"][k], rtol=0, atol=3e-5)
            expected = chain[f"{official}/trajectory_pred_xstart"][k]
            np.testing.assert_allclose(x_0, expected, rtol=0, atol=3e-5)
    np.testing.assert_allclose(sampler.read(carry), chain[f"{official}/p_sample_loop"], rtol=0, atol=3e-5)


def test_a_step_is_a_draw_from_p():
    """With a step of its own for each image; at t = 0 it is the mean."""
    process, rng = diffusion.make_process(beta_schedule("linear", 1000)), np.random.default_rng(0)
    mean, log_variance, x_0, x_t, noise = rng.standard_normal((5, 3, 4, 5, 2)).astype(np.float32)
    prediction = diffusion.Prediction(
        x_0=x_0, eps=x_t, mean=mean, variance=np.exp(log_variance), log_variance=log_variance
    )
    sampler = samplers.ancestral(process)
    i = jnp.array([0, 1, 999])
    carry, predicted = sampler.step(lambda x, t: prediction, sampler.init(x_t), i, noise)
    expected = mean + np.array([0, 1, 1]).reshape(3, 1, 1, 1) * np.exp(0.5 * log_variance) * noise
    np.testing.assert_allclose(sampler.read(carry), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predicted, x_0)


def test_it_is_the_sampler_of_every_loop_unless_another_is_given():
    process = diffusion.make_process(beta_schedule("linear", 10))
    denoise_fn = fixed_denoise_fn(np.array([0.3, 0.2, 0.5, 0.0, 0.0, 0.0]))
    draw = functools.partial(
        sampling.sample_loop, process, denoise_fn, keys=sampling.image_keys(0, np.arange(2)), shape=(4, 6, 1)
    )
    np.testing.assert_array_equal(draw(), draw(sampler=samplers.ancestral(process)))


@pytest.mark.parametrize(
    "chain",
    ["K10/leading/fixed_small", "K10/linspace/fixed_large", "K10/trailing/fixed_small", "K13/leading/fixed_small"],
)
def test_the_steps_at_some_timesteps_equal_those_of_diffusers(golden, chain):
    recorded, process = golden("samplers"), recorded_process(chain.rsplit("/")[-1].replace("_", ""))
    folder = f"diffusers/ddpm/{chain}/clip1"
    sampler = samplers.ancestral(process, recorded[f"{folder}/timesteps"][::-1])
    x = recorded[f"{folder}/x"]
    made = states(sampler, network(recorded), x[0], noise=recorded["diffusers/noise"], clip=True, of=process)
    assert error(made, x) < 1e-5


@pytest.mark.parametrize("var_type", ["fixedsmall", "fixedlarge"])
def test_coefficients_for_all_timesteps_are_those_of_the_process(var_type):
    process = recorded_process(var_type)
    of_x_0, of_x_t, deviation = posterior_weights(process, np.arange(1000), large=var_type == "fixedlarge").T
    np.testing.assert_allclose(of_x_0, process.posterior_mean_coef1, rtol=2e-5)
    np.testing.assert_allclose(of_x_t, process.posterior_mean_coef2, rtol=2e-5, atol=1e-7)
    np.testing.assert_allclose(deviation[1:] ** 2, process.model_variance[1:], rtol=4e-5)
    assert deviation[0] == 0.0


def test_learned_variances_are_of_single_steps():
    process = diffusion.make_process(beta_schedule("linear", 10), var_type="learned")
    with pytest.raises(ValueError, match="var_type='learned' is of single steps: ancestral sampling takes all of them"):
        samplers.ancestral(process, np.array([0, 5, 9]))
    assert samplers.ancestral(process, np.arange(10)).num_steps == 10
