import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from denoise_fns import exact_denoise_fn, fixed_denoise_fn
from hypothesis import given
from hypothesis import strategies as st

from ddpm_jax import diffusion, likelihood, sampling
from ddpm_jax.schedule import beta_schedule

MEAN, DEVIATION = 0.1, 0.2  # of Gaussian data, narrow enough that no pixel reaches the bins at both ends
N, SHAPE = 300, (8, 8, 2)
gaussian_denoise_fn = functools.partial(exact_denoise_fn, mean=MEAN, deviation=DEVIATION)


def gaussian_images(n=N):
    return MEAN + DEVIATION * jax.random.normal(jax.random.key(5), (n, *SHAPE))


@functools.cache
def gaussian_bound(var_type):
    process = diffusion.make_process(beta_schedule("linear", 1000), var_type=var_type)
    loop = jax.jit(functools.partial(likelihood.bpd_loop, process, gaussian_denoise_fn(process), clip=False))
    return loop(x_0=gaussian_images(), keys=sampling.image_keys(0, np.arange(N)))


def expected_terms(var_type):
    """Computes E[L_t] in bits/dim and E[(x_0 - E[x_0 | x_t])^2], each [1000], from the definitions in float64."""
    betas = np.linspace(1e-4, 0.02, 1000)
    alphas_cumprod = np.cumprod(1.0 - betas)
    before = np.append(1.0, alphas_cumprod[:-1])
    mse = DEVIATION**2 * (1.0 - alphas_cumprod) / (alphas_cumprod * DEVIATION**2 + 1.0 - alphas_cumprod)
    q_variance = betas * (1.0 - before) / (1.0 - alphas_cumprod)
    p_variance = np.where(var_type == "fixedsmall", q_variance, betas)
    mean_error = (np.sqrt(before) * betas / (1.0 - alphas_cumprod)) ** 2 * mse  # both means are linear in x_0
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = 0.5 * (np.log(p_variance / q_variance) - 1.0 + (q_variance + mean_error) / p_variance) / np.log(2.0)
    scale, bin_radius = np.sqrt(q_variance[1]), 1.0 / 255.0
    error = np.linspace(-8, 8, 4001) * np.sqrt(mse[0])  # of the decoder's mean, which is E[x_0 | x_1]
    inside = [scipy.stats.norm.cdf((error + side) / scale) for side in (bin_radius, -bin_radius)]
    weights = scipy.stats.norm.pdf(error, scale=np.sqrt(mse[0])) * (error[1] - error[0])
    terms[0] = -(weights * np.log2(np.maximum(inside[0] - inside[1], 1e-12))).sum()
    return terms, mse


def assert_within(values, expected, errors=4.0, rtol=1e-3):
    mean, standard_error = likelihood.mean_over_images(values)
    assert np.all(np.abs(mean - expected) < errors * standard_error + rtol * np.abs(expected))


@pytest.mark.parametrize("clip", [False, True])
def test_the_terms_with_known_noise_equal_the_official_ones(golden, clip):
    chain = golden("chain")
    process, denoise_fn = diffusion.make_process(chain["betas"]), fixed_denoise_fn(chain["denoise_coef"])
    x_0 = jnp.asarray(chain["bpd_x_start"])
    term = jax.jit(functools.partial(likelihood.bpd_term, process, denoise_fn, x_0=x_0, clip=clip))
    found = [term(t=jnp.full(2, t), eps=eps) for t, eps in enumerate(chain["bpd_noise"])]
    terms, mse = (np.stack(values, axis=1) for values in zip(*found, strict=True))
    prior = diffusion.prior_bpd(process, x_0=x_0)
    official = {name: chain[f"eps_fixedlarge/bpd_clip{clip:d}/{name}"] for name in ("terms_bpd", "prior_bpd", "mse")}
    np.testing.assert_allclose(terms[:, 1:], official["terms_bpd"][:, 1:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms[:, 0], official["terms_bpd"][:, 0], rtol=1e-3)
    np.testing.assert_allclose(mse, official["mse"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(prior, official["prior_bpd"], rtol=1e-4, atol=1e-7)
    total = chain[f"eps_fixedlarge/bpd_clip{clip:d}/total_bpd"]
    np.testing.assert_allclose(prior + terms.sum(axis=1), total, rtol=1e-3)


@pytest.mark.parametrize("clip", [False, True])
def test_the_loop_is_the_loop_of_its_terms(golden, clip):
    """Compares with a Python loop over `bpd_term`, with the noise drawn as documented."""
    chain = golden("chain")
    process, denoise_fn = diffusion.make_process(chain["betas"]), fixed_denoise_fn(chain["denoise_coef"])
    x_0, keys = jnp.asarray(chain["bpd_x_start"]), sampling.image_keys(3, np.array([7, 2]))
    bound = likelihood.bpd_loop(process, denoise_fn, x_0=x_0, keys=keys, clip=clip)
    bpd_term = jax.jit(functools.partial(likelihood.bpd_term, process, denoise_fn, clip=clip))
    for t in range(20):
        eps = jnp.stack([jax.random.normal(jax.random.fold_in(key, t), x_0.shape[1:]) for key in keys])
        term, mse = bpd_term(x_0=x_0, t=jnp.full(2, t), eps=eps)
        np.testing.assert_allclose(bound.terms[:, t], term, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(bound.mse[:, t], mse, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bound.prior, diffusion.prior_bpd(process, x_0=x_0))
    np.testing.assert_allclose(bound.total, bound.prior + bound.terms.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("var_type", ["fixedsmall", "fixedlarge"])
def test_of_gaussian_data_every_term_is_known(var_type):
    bound, (terms, mse) = gaussian_bound(var_type), expected_terms(var_type)
    assert_within(bound.terms, terms, errors=5.0)  # a thousand of them
    assert_within(bound.mse, mse, errors=5.0)
    assert_within(np.sum(bound.terms[:, 1:], axis=1), terms[1:].sum(), rtol=1e-5)
    assert_within(bound.total, terms.sum() + np.mean(bound.prior), rtol=1e-4)
    # No model of the data costs less than their entropy: that of the Gaussian in bins of 1/127.5.
    entropy = np.log2(DEVIATION * np.sqrt(2.0 * np.pi * np.e) * 127.5)
    assert entropy < terms.sum() < entropy + 1.5


def test_l_t_of_the_last_step_is_its_closed_form():
    alpha_cumprod = np.prod(1.0 - np.linspace(1e-4, 0.02, 1000))
    expected = 0.5 * (alpha_cumprod * (MEAN**2 + DEVIATION**2 - 1.0) - np.log1p(-alpha_cumprod)) / np.log(2.0)
    assert_within(gaussian_bound("fixedlarge").prior, expected, rtol=0.01)
    process = diffusion.make_process(beta_schedule("linear", 1000))
    half, keys = jnp.full((1, 2, 2, 1), 0.5), sampling.image_keys(0, np.arange(1))  # E[x^2] = 0.25
    bound = likelihood.bpd_loop(process, lambda x_t, t: x_t, x_0=half, keys=keys)
    np.testing.assert_allclose(bound.prior, 7.3e-6, rtol=0.01)


@given(st.data())
def test_strata_split_the_timesteps(data):
    num_timesteps = data.draw(st.integers(2, 5000))
    count = data.draw(st.integers(1, num_timesteps))
    edges = likelihood.strata(num_timesteps, count)
    assert len(edges) == count + 1
    assert (edges[0], edges[-1]) == (0, num_timesteps)
    assert np.all(np.diff(edges) >= 1)
    assert count == 1 or edges[1] == 1


def test_as_many_strata_as_the_process_has_timesteps_at_most():
    np.testing.assert_array_equal(likelihood.strata(7, 7), np.arange(8))
    for count in (0, 8):
        with pytest.raises(ValueError, match=f"num_timesteps={count} must be from 1 to the process's 7"):
            likelihood.strata(7, count)


def chain_estimate(chain, *, keys, num_timesteps=None):
    """Estimates the bound of the first image of the reference chain with each of the keys, or computes all of it."""
    process, denoise_fn = diffusion.make_process(chain["betas"]), fixed_denoise_fn(chain["denoise_coef"])
    x_0 = jnp.broadcast_to(chain["bpd_x_start"][:1], (len(keys), *chain["bpd_x_start"].shape[1:]))
    if num_timesteps is None:
        return jax.jit(functools.partial(likelihood.bpd_loop, process, denoise_fn))(x_0=x_0, keys=keys).total
    estimate = functools.partial(likelihood.bpd_estimate, process, denoise_fn, num_timesteps=num_timesteps)
    return jax.jit(estimate)(x_0=x_0, keys=keys)


@pytest.fixture(scope="module")
def chain_total(golden):
    """Computes the total of the first image of the reference chain, with 2000 keys."""
    return chain_estimate(golden("chain"), keys=sampling.image_keys(1, np.arange(2000)))


@pytest.mark.parametrize("num_timesteps", [1, 2, 7, 19])
def test_the_estimate_is_unbiased(golden, chain_total, num_timesteps):
    keys = sampling.image_keys(1, np.arange(2000))
    estimate = chain_estimate(golden("chain"), keys=keys, num_timesteps=num_timesteps)
    assert_within(estimate - chain_total, 0.0)  # the same noise, so that the choice of t alone makes the difference
    assert np.std(estimate - chain_total) > 1e-4  # far above rounding: with K < T something is left to chance


def test_of_all_timesteps_the_estimate_is_the_loop(golden):
    chain, keys = golden("chain"), sampling.image_keys(1, np.arange(9))
    estimate = chain_estimate(chain, keys=keys, num_timesteps=20)
    np.testing.assert_allclose(estimate, chain_estimate(chain, keys=keys), rtol=1e-5)


def test_a_few_timesteps_tell_the_bound():
    """It is within the standard errors of both, which have independent noise; and these are small."""
    process = diffusion.make_process(beta_schedule("linear", 1000))
    estimate = likelihood.bpd_estimate(
        process,
        gaussian_denoise_fn(process),
        x_0=gaussian_images(),
        keys=sampling.image_keys(1, np.arange(N)),
        num_timesteps=20,
        clip=False,
    )
    fast, full = likelihood.mean_over_images(estimate), likelihood.mean_over_images(gaussian_bound("fixedlarge").total)
    assert abs(fast.mean - full.mean) < 4 * np.hypot(fast.standard_error, full.standard_error)
    assert fast.standard_error < 0.01 * fast.mean


@pytest.mark.parametrize("num_timesteps", [None, 5])
def test_an_image_does_not_depend_on_its_batch(golden, num_timesteps):
    chain = golden("chain")
    together = chain_estimate(chain, keys=sampling.image_keys(0, np.arange(5)), num_timesteps=num_timesteps)
    alone = chain_estimate(chain, keys=sampling.image_keys(0, np.array([3])), num_timesteps=num_timesteps)
    np.testing.assert_allclose(alone[0], together[3], rtol=1e-5)
    assert len(np.unique(together)) == 5


def test_the_mean_and_its_standard_error():
    mean, standard_error = likelihood.mean_over_images(np.array([[1.0, 2.0], [3.0, 2.0], [5.0, 2.0]]))
    np.testing.assert_allclose(mean, [3.0, 2.0])
    np.testing.assert_allclose(standard_error, [2.0 / np.sqrt(3), 0.0])


def test_progressive_coding_sends_the_terms_from_the_last_to_the_first():
    terms, prior = np.array([[8.0, 4.0, 2.0, 1.0]]), np.array([0.5])
    rate = likelihood.progressive_rate(terms=terms, prior=prior)
    np.testing.assert_allclose(rate, [[7.5, 3.5, 1.5, 0.5]])  # with L_0 = 8 the whole bound, 15.5
    rmse = likelihood.progressive_rmse(np.array([[0.04, 1.0], [0.12, 1.0]]))
    np.testing.assert_allclose(rmse.mean, 127.5 * np.sqrt([0.08, 1.0]))
    np.testing.assert_allclose(rmse.standard_error, [127.5 * 0.04 / (2 * np.sqrt(0.08)), 0.0])


def test_the_error_of_the_distortion_is_that_of_many_data_sets():
    mse = np.random.default_rng(0).gamma(2.0, 0.01, (2000, 100, 1))
    found = [likelihood.progressive_rmse(one) for one in mse]
    spread = np.std([one.mean for one in found])
    np.testing.assert_allclose(np.mean([one.standard_error for one in found]), spread, rtol=0.1)


def test_the_bound_in_pieces_has_the_bits_of_the_one_scan():
    process = diffusion.make_process(beta_schedule("linear", 30))
    x_0 = np.random.default_rng(0).uniform(-1.0, 1.0, (3, 4, 4, 2)).astype(np.float32)
    arrays = x_0, sampling.image_keys(0, np.arange(3))
    denoise_fn = lambda x, t: jnp.tanh(x) + 0.1 * jnp.sin(t)[:, None, None, None]  # noqa: E731
    chain = likelihood.bpd_chain(process, denoise_fn)
    run, carried = jax.jit(chain.run), jax.jit(chain.init)(*arrays)
    for begin, end in ((0, 1), (1, 19), (19, 30)):
        carried = run(carried, begin, end, *arrays)
    whole = jax.jit(lambda x_0, keys: likelihood.bpd_loop(process, denoise_fn, x_0=x_0, keys=keys))(*arrays)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(chain.read)(carried), whole)


def test_shapes_that_do_not_fit_are_refused():
    process, x_0 = diffusion.make_process(beta_schedule("linear", 10)), jnp.zeros((2, 4, 4, 1))
    keys = sampling.image_keys(0, np.arange(3))
    with pytest.raises(AssertionError):
        likelihood.bpd_loop(process, lambda x, t: x, x_0=x_0, keys=keys)
    with pytest.raises(AssertionError):
        likelihood.bpd_estimate(process, lambda x, t: x, x_0=x_0, keys=keys, num_timesteps=2)
