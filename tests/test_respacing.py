"""Respaced processes: chains, losses and the bound, against the code of Improved DDPM."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import channelwise_denoise_fn

from ddpm_jax import diffusion, likelihood, samplers, sampling
from ddpm_jax.schedule import respaced_betas, respaced_timesteps

SECTIONS = ("10", "ddim10", "4,3,3")


@pytest.fixture
def recorded(golden):
    arrays = golden("respaced_chains")
    return {name: arrays[name] for name in arrays}


def respaced(arrays, sections, *, rescale=False, **choices):
    """Makes the process that takes some of the 100 timesteps; `rescale`: the network is given them on 0..1000."""
    timesteps = respaced_timesteps(100, sections)
    betas = respaced_betas(arrays["betas"], timesteps)
    return diffusion.make_process(betas, timesteps=timesteps * 1000 / 100 if rescale else timesteps, **choices)


def named(choices):
    return {"learnedrange": "learned_range"}.get(choices, choices)


@pytest.mark.parametrize("sections", SECTIONS)
def test_whole_chains_equal_improved_ddpm(recorded, sections):
    key = f"respaced_{sections.replace(',', '_')}"
    x_T, *noise = recorded[f"{key}/noise_sequence"]  # noqa: N806
    chains = [name for name in recorded if name.startswith(f"{key}/p_sample")]
    assert len(chains) == 6
    for name in chains:
        mean_type, var_type, clip, rescale = name.split("/")[2:]
        var_type = named(var_type)
        process = respaced(
            recorded, sections, rescale=rescale == "rescale1", mean_type=mean_type, var_type=var_type
        )  # fmt: skip
        denoise_fn = channelwise_denoise_fn(recorded, var_type)
        step = jax.jit(functools.partial(sampling.p_sample, process, denoise_fn, clip=clip == "clip1"))
        x = jnp.asarray(x_T)
        for i, expected in enumerate(recorded[name]):
            x, _ = step(x_t=x, t=jnp.full(2, 9 - i), eps=noise[i])
            np.testing.assert_allclose(x, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


def test_the_one_scan_runs_a_respaced_process(recorded):
    process = respaced(recorded, "4,3,3", var_type="learned_range")
    x_T, *noise = recorded["respaced_4_3_3/noise_sequence"]  # noqa: N806
    known = jnp.stack([*noise[::-1], x_T])  # the noise of step i at i, x_T at T
    x_0 = sampling.sample_loop(
        process, channelwise_denoise_fn(recorded, "learned_range"), keys=sampling.image_keys(0, np.arange(2)),
        shape=x_T.shape[1:], noise_fn=lambda keys, index, shape: known[index],
    )  # fmt: skip
    expected = recorded["respaced_4_3_3/p_sample/eps/learnedrange/clip1/rescale0"][-1]
    np.testing.assert_allclose(x_0, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("sections", SECTIONS)
@pytest.mark.parametrize("mean_type", ["eps", "xstart"])
def test_ancestral_steps_at_some_timesteps_learn_their_variances_as_the_respaced_process_does(
    recorded, sections, mean_type
):
    key = f"respaced_{sections.replace(',', '_')}"
    process = diffusion.make_process(recorded["betas"], mean_type=mean_type, var_type="learned_range")
    sampler = samplers.ancestral(process, respaced_timesteps(100, sections))
    x_T, *noise = recorded[f"{key}/noise_sequence"]  # noqa: N806
    known = jnp.stack(noise[::-1])
    x_0 = sampling.decode(
        process, channelwise_denoise_fn(recorded, "learned_range"), x_t=jnp.asarray(x_T), num_steps=10,
        keys=sampling.image_keys(0, np.arange(2)), sampler=sampler, noise_fn=lambda keys, index, shape: known[index],
    )  # fmt: skip
    expected = recorded[f"{key}/p_sample/{mean_type}/learnedrange/clip1/rescale0"][-1]
    np.testing.assert_allclose(x_0, expected, rtol=0, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("sections", SECTIONS)
@pytest.mark.parametrize("rescale", [False, True])
def test_losses_equal_improved_ddpm_whose_factors_count_the_steps_that_are_taken(recorded, sections, rescale):
    key = f"respaced_{sections.replace(',', '_')}"
    process = respaced(recorded, sections, rescale=rescale, var_type="learned_range")
    losses = functools.partial(
        diffusion.training_losses, process, channelwise_denoise_fn(recorded, "learned_range"),
        x_0=recorded[f"{key}/inversion/x_start"], t=recorded[f"{key}/losses/t"], eps=recorded[f"{key}/losses/noise"],
    )  # fmt: skip
    expected = {name: recorded[f"{key}/losses/{name}/rescale{rescale:d}/loss"] for name in ("rescaled_mse", "kl")}
    np.testing.assert_allclose(losses(loss_type="hybrid"), expected["rescaled_mse"], rtol=1e-3)
    np.testing.assert_allclose(losses(loss_type="kl"), expected["kl"], rtol=1e-3, atol=2e-5)
    bound = recorded[f"{key}/losses/rescaled_mse/rescale{rescale:d}/vb"]
    np.testing.assert_allclose(0.001 * 10 * expected["kl"], bound, rtol=1e-5)  # T is 10 here, not 100


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    ("mean_type", "var_type"),
    [("eps", "learnedrange"), ("eps", "fixedlarge"), ("xstart", "learnedrange"), ("xprev", "learned")],
)
def test_the_bound_equals_improved_ddpm(recorded, mean_type, var_type, clip):
    timesteps = recorded["bpd_spaced/timestep_map"]
    process = diffusion.make_process(
        respaced_betas(recorded["bpd_spaced/base_betas"], timesteps), timesteps=timesteps, mean_type=mean_type,
        var_type=named(var_type),
    )  # fmt: skip
    x_0 = jnp.asarray(recorded["bpd_spaced/x_start"])
    denoise_fn = channelwise_denoise_fn(recorded, named(var_type))
    term = jax.jit(functools.partial(likelihood.bpd_term, process, denoise_fn, x_0=x_0, clip=clip))
    found = [term(t=jnp.full(2, t), eps=eps) for t, eps in enumerate(recorded["bpd_spaced/noise_by_t"])]
    terms, mse = (np.stack(values, axis=1) for values in zip(*found, strict=True))
    prior = diffusion.prior_bpd(process, x_0=x_0)
    official = functools.partial("bpd_spaced/{}/{}/clip{:d}/{}".format, mean_type, var_type, clip)
    expected, exact = recorded[official("vb")], recorded[official("vb_f64")]
    usable = np.abs(expected - exact) <= 1e-4 * (1.0 + np.abs(exact))
    assert usable[:, 1:].all()
    np.testing.assert_allclose(terms[usable], expected[usable], rtol=1e-3, atol=2e-5)
    np.testing.assert_allclose(prior, recorded[official("prior_bpd")], rtol=0, atol=1e-7)
    np.testing.assert_allclose(mse, recorded[official("xstart_mse")], rtol=0, atol=5e-5 * mse.max())
    np.testing.assert_allclose(prior + terms.sum(axis=1), recorded[official("total_bpd")], rtol=1e-3)


def test_the_loop_over_a_respaced_process_sums_its_terms(recorded):
    process = respaced(recorded, "4,3,3", rescale=True, var_type="learned_range")
    denoise_fn = channelwise_denoise_fn(recorded, "learned_range")
    x_0, keys = jnp.asarray(recorded["bpd_spaced/x_start"]), sampling.image_keys(3, np.arange(2))
    bound = likelihood.bpd_loop(process, denoise_fn, x_0=x_0, keys=keys)
    assert bound.terms.shape == (2, 10)
    term, _ = likelihood.bpd_term(
        process, denoise_fn, x_0=x_0, t=jnp.full(2, 4), eps=sampling.noise(keys, 4, x_0.shape[1:])
    )
    np.testing.assert_allclose(bound.terms[:, 4], term, rtol=1e-5)
    estimate = likelihood.bpd_estimate(process, denoise_fn, x_0=x_0, keys=keys, num_timesteps=10)
    np.testing.assert_allclose(estimate, bound.total, rtol=1e-5)
