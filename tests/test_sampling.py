import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fixed_denoise_fn

from ddpm_jax import diffusion, sampling
from ddpm_jax.schedule import beta_schedule

MEAN, DEVIATION = 0.3, 0.5  # of the Gaussian data whose best denoiser is known


def gaussian_denoise_fn(process):
    """E[eps | x_t] for x_0 ~ N(MEAN, DEVIATION^2) in each pixel."""

    def denoise_fn(x_t, t):
        alpha_cumprod = process.alphas_cumprod[t][:, None, None, None]
        variance = alpha_cumprod * DEVIATION**2 + 1.0 - alpha_cumprod
        return jnp.sqrt(1.0 - alpha_cumprod) * (x_t - jnp.sqrt(alpha_cumprod) * MEAN) / variance

    return denoise_fn


@pytest.mark.parametrize("mean_type", ["xprev", "xstart", "eps"])
@pytest.mark.parametrize("var_type", ["learned", "fixedsmall", "fixedlarge"])
def test_one_step_equals_the_official_one(golden, mean_type, var_type):
    ops = golden("diffusion_ops")
    process = diffusion.make_process(ops["betas"], mean_type=mean_type, var_type=var_type, loss_type="kl")
    denoise_fn = fixed_denoise_fn(ops["denoise_coef"], learned=var_type == "learned")
    step = functools.partial(sampling.p_sample, process, denoise_fn)
    x_t, _ = jax.jit(step)(x_t=ops["q_sample"], t=ops["t"], eps=ops["step_noise"])
    np.testing.assert_allclose(x_t, ops[f"p_sample/{mean_type}/{var_type}"], rtol=0, atol=2e-5 * np.abs(x_t).max())


@pytest.mark.parametrize(("var_type", "official"), [("fixedlarge", "eps_fixedlarge"), ("fixedsmall", "old")])
def test_the_chain_with_known_noise_equals_the_official_one(golden, var_type, official):
    chain = golden("chain")
    process = diffusion.make_process(chain["betas"], var_type=var_type)
    denoise_fn = fixed_denoise_fn(chain["denoise_coef"])

    def step(x_t, inputs):
        t, eps = inputs
        x_t, x_0 = sampling.p_sample(process, denoise_fn, x_t=x_t, t=jnp.full(2, t), eps=eps)
        return x_t, (x_t, x_0)

    first, *noise = chain["noise_sequence"]
    x_0, (states, predicted) = jax.lax.scan(step, jnp.asarray(first), (jnp.arange(19, -1, -1), np.stack(noise)))
    np.testing.assert_allclose(x_0, chain[f"{official}/p_sample_loop"], rtol=0, atol=3e-5)
    if official == "eps_fixedlarge":
        np.testing.assert_allclose(states, chain[f"{official}/trajectory"], rtol=0, atol=3e-5)
        np.testing.assert_allclose(predicted, chain[f"{official}/trajectory_pred_xstart"], rtol=0, atol=3e-5)


@pytest.mark.parametrize("var_type", ["fixedsmall", "fixedlarge"])
def test_the_chain_with_the_exact_denoiser_returns_the_gaussian(var_type):
    process = diffusion.make_process(beta_schedule("linear", 1000), var_type=var_type)
    keys, shape = sampling.image_keys(0, np.arange(200)), (8, 8, 2)
    x_0 = sampling.sample_loop(process, gaussian_denoise_fn(process), keys=keys, shape=shape, clip=False)
    n = x_0.size
    # A thousand steps are not infinitely many: the chain's own deviation is within 1 % of the data's.
    np.testing.assert_allclose(x_0.mean(), MEAN, atol=5 * DEVIATION / np.sqrt(n))
    np.testing.assert_allclose(x_0.std(), DEVIATION, rtol=0.01 + 5 / np.sqrt(2 * n))


def test_the_chain_is_the_loop_of_its_steps():
    """Against Algorithm 2 written as a Python loop over `p_sample`, with the noise drawn as documented."""
    process = diffusion.make_process(beta_schedule("linear", 5, beta_end=0.5))
    denoise_fn, shape, keys = gaussian_denoise_fn(process), (4, 6, 1), sampling.image_keys(3, np.array([7, 2]))

    def noise(index):
        return jnp.stack([jax.random.normal(jax.random.fold_in(key, index), shape) for key in keys])

    x_t = noise(5)
    for t in (4, 3, 2, 1, 0):
        x_t, _ = sampling.p_sample(process, denoise_fn, x_t=x_t, t=jnp.full(2, t), eps=noise(t))
    x_0 = sampling.sample_loop(process, denoise_fn, keys=keys, shape=shape)
    np.testing.assert_allclose(x_0, x_t, rtol=1e-5, atol=1e-6)


def test_an_image_does_not_depend_on_the_batch_it_is_drawn_in():
    process = diffusion.make_process(beta_schedule("linear", 10))
    draw = functools.partial(sampling.sample_loop, process, gaussian_denoise_fn(process), shape=(4, 4, 1), clip=False)
    together = draw(keys=sampling.image_keys(0, np.arange(5)))
    alone = draw(keys=sampling.image_keys(0, np.array([3])))
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-6, atol=1e-6)
    other = draw(keys=sampling.image_keys(1, np.array([3])))
    assert np.abs(other[0] - together[3]).max() > 0.1
    assert len(np.unique(together)) == together.size  # no two pixels, so no two images, share their noise


def test_the_chain_can_be_jitted_inside_a_larger_function_and_vmapped():
    process = diffusion.make_process(beta_schedule("linear", 10))
    draw = functools.partial(sampling.sample_loop, process, gaussian_denoise_fn(process), shape=(4, 4, 1))

    @jax.jit
    def brightness(seed):
        return draw(keys=sampling.image_keys(seed, jnp.arange(3))).mean(axis=(1, 2, 3))

    plain = [draw(keys=sampling.image_keys(seed, np.arange(3))).mean(axis=(1, 2, 3)) for seed in (0, 1)]
    np.testing.assert_allclose(jax.vmap(brightness)(jnp.arange(2)), np.stack(plain), rtol=1e-4, atol=1e-6)


def test_clipping_keeps_the_predicted_image_in_range():
    process = diffusion.make_process(beta_schedule("linear", 10))
    x_t, t = 5.0 * jnp.ones((1, 2, 2, 1)), jnp.array([9])
    for clip, largest in ((True, 1.0), (False, 5.0)):
        _, x_0 = sampling.p_sample(process, lambda x, t: jnp.zeros_like(x), x_t=x_t, t=t, eps=x_t, clip=clip)
        assert np.abs(x_0).max() == 1.0 if clip else np.abs(x_0).max() > largest
