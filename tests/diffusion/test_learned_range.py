"""Variances in a learned range and L_hybrid, of Improved DDPM: against its own code, and from the definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import channelwise_denoise_fn

from ddpm_jax import diffusion, sampling

PROCESSES = ("linear250", "cosine60")
MEAN_TYPES = ("eps", "xstart", "xprev")


@pytest.fixture
def recorded(golden):
    """Returns a reader of one process's arrays: `recorded("linear250")["x_t"]`."""
    arrays = golden("learned_range")
    return lambda name: {
        key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith((f"{name}/", "coef/"))
    }


def make_process(ops, mean_type="eps", var_type="learned_range"):
    return diffusion.make_process(ops["betas"], mean_type=mean_type, var_type=var_type)


def assert_close(actual, expected, tolerance=2e-5):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()))


def assert_bpd(actual, expected, exact, factor=1.0):
    """Compares terms of the bound where the reference's float32 is as good as float64."""
    usable = np.abs(expected / factor - exact) <= 1e-4 * (1.0 + np.abs(exact))
    assert usable.sum() >= 4
    np.testing.assert_allclose(actual[usable], expected[usable], rtol=1e-3, atol=2e-5 * factor)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("mean_type", MEAN_TYPES)
@pytest.mark.parametrize("clip", [False, True])
def test_p_and_the_bound_equal_improved_ddpm(recorded, name, mean_type, clip):
    ops, case = recorded(name), f"{mean_type}/learnedrange/clip{clip:d}"
    process, output = make_process(ops, mean_type), ops["denoise/range"]
    at = dict(model_output=output, x_t=ops["x_t"], t=ops["t"], clip=clip)
    predicted = jax.jit(diffusion.p_mean_variance, static_argnames="clip")(process, **at)
    assert_close(predicted.mean, ops[f"p_mean_variance/{case}/mean"])
    assert_close(predicted.x_0, ops[f"p_mean_variance/{case}/pred_xstart"], 2e-4)
    assert_close(predicted.variance, ops["p_mean_variance/any/learnedrange/variance"])
    assert_close(predicted.log_variance, ops["p_mean_variance/any/learnedrange/log_variance"])
    terms, _ = jax.jit(diffusion.vb_terms_bpd, static_argnames="clip")(process, x_0=ops["x_start"], **at)
    assert_bpd(terms, ops[f"vb_terms_bpd/{case}"], ops[f"vb_terms_bpd_f64/{case}"])


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("mean_type", MEAN_TYPES)
def test_a_step_of_the_chain_equals_improved_ddpm(recorded, name, mean_type):
    ops = recorded(name)
    process, denoise_fn = make_process(ops, mean_type), channelwise_denoise_fn(ops, "learned_range")
    x, _ = sampling.p_sample(process, denoise_fn, x_t=jnp.asarray(ops["x_t"]), t=ops["t"], eps=ops["step_noise"])
    assert_close(x, ops[f"p_sample/{mean_type}/learnedrange/clip1"])


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("mean_type", MEAN_TYPES)
def test_the_losses_equal_improved_ddpm(recorded, name, mean_type):
    ops = recorded(name)
    process, denoise_fn = make_process(ops, mean_type), channelwise_denoise_fn(ops, "learned_range")
    losses = functools.partial(
        diffusion.training_losses, process, denoise_fn, x_0=ops["x_start"], t=ops["t"], eps=ops["noise"]
    )
    exact, n = ops[f"vb_terms_bpd_f64/{mean_type}/learnedrange/clip0"], process.num_timesteps
    assert_bpd(n * losses(loss_type="kl"), ops[f"training_losses/rescaled_kl/{mean_type}/learnedrange/loss"], exact, n)
    hybrid = f"training_losses/rescaled_mse/{mean_type}/learnedrange"
    error, bound = ops[f"{hybrid}/mse"], ops[f"{hybrid}/vb"]
    np.testing.assert_allclose(error + bound, ops[f"{hybrid}/loss"], rtol=1e-6)
    assert_bpd(losses(loss_type="hybrid") - error, bound, exact, n / 1000)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("mean_type", MEAN_TYPES)
def test_hybrid_learns_the_log_variance_itself_too(recorded, name, mean_type):
    ops = recorded(name)
    losses = diffusion.training_losses(
        make_process(ops, mean_type, "learned"), channelwise_denoise_fn(ops, "learned"), x_0=ops["x_start"],
        t=ops["t"], eps=ops["noise"], loss_type="hybrid",
    )  # fmt: skip
    later = ops["t"] > 0  # where the decoder's float32 does not matter
    expected = ops[f"training_losses/rescaled_mse/{mean_type}/learned/loss"]
    np.testing.assert_allclose(losses[later], expected[later], rtol=1e-3)


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("loss_type", "factor"), [("hybrid", False), ("kl", True)])
def test_the_gradients_equal_improved_ddpm(recorded, name, loss_type, factor):
    """Of the output: L_hybrid's bound does not reach the half that predicts, L_vlb's does."""
    ops = recorded(name)
    process = make_process(ops)

    def loss(output):
        return diffusion.training_losses(
            process, lambda x_t, t: output, x_0=ops["x_start"], t=ops["t"], eps=ops["noise"], loss_type=loss_type
        ).sum()

    found = np.asarray(jax.grad(loss)(jnp.asarray(ops["denoise/range"]))) * (process.num_timesteps if factor else 1)
    expected = ops["vlb_gradient" if factor else "hybrid_gradient"]
    for image, reference in zip(found, expected, strict=True):
        np.testing.assert_allclose(image, reference, rtol=0, atol=2e-4 * np.abs(reference).max())
    prediction = ops["denoise/range"][..., :3]
    of_the_error = 2.0 * (prediction - ops["noise"]) / prediction[0].size
    assert np.allclose(found[..., :3], of_the_error, rtol=1e-4, atol=1e-7) is (loss_type == "hybrid")


def test_the_ends_of_the_range_are_the_two_fixed_variances():
    betas = np.linspace(1e-3, 0.1, 30)
    t = np.arange(1, 30)
    x_t, ones = jnp.zeros((29, 1, 1, 1)), jnp.ones((29, 1, 1, 1))
    ranged = diffusion.make_process(betas, var_type="learned_range")
    for v, var_type in ((-1.0, "fixedsmall"), (1.0, "fixedlarge")):
        output = jnp.concatenate([ones, v * ones], axis=-1)
        found = diffusion.p_mean_variance(ranged, model_output=output, x_t=x_t, t=t)
        fixed = diffusion.make_process(betas, var_type=var_type)
        expected = diffusion.p_mean_variance(fixed, model_output=ones, x_t=x_t, t=t)
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-5)
        np.testing.assert_array_equal(found.mean, expected.mean)
