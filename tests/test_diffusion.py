import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from denoise_fns import fixed_denoise_fn
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_jax import diffusion
from ddpm_jax.schedule import beta_schedule

TABLES = {
    "alphas_cumprod": "alphas_cumprod",
    "sqrt_alphas_cumprod": "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod": "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod": "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod": "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod": "sqrt_recipm1_alphas_cumprod",
    "posterior_variance": "posterior_variance",
    "posterior_log_variance": "posterior_log_variance_clipped",
    "posterior_mean_coef1": "posterior_mean_coef1",
    "posterior_mean_coef2": "posterior_mean_coef2",
}


def linear(**choices):
    return diffusion.make_process(beta_schedule("linear", 1000), **choices)


def assert_close(actual, expected):
    """Compares images in float32, as closely as the reference vectors allow."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("table", TABLES)
def test_tables_equal_the_official_ones(golden, table):
    actual = getattr(linear(), table)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, golden("schedules")[f"linear/{TABLES[table]}"], rtol=1e-6)


@pytest.mark.parametrize("var_type", ["fixedsmall", "fixedlarge"])
def test_model_variances_equal_the_official_ones(golden, var_type):
    process = linear(var_type=var_type)
    expected = golden("schedules")
    np.testing.assert_allclose(process.model_variance, expected[f"linear/{var_type}_variance_f32"], rtol=1e-6)
    np.testing.assert_allclose(process.model_log_variance, expected[f"linear/{var_type}_log_variance_f32"], rtol=1e-6)


def test_known_values_of_the_paper_s_process():
    process = linear()
    np.testing.assert_allclose(process.alphas_cumprod[-1], 4.0358e-5, rtol=1e-4)
    np.testing.assert_allclose(process.posterior_variance[1], 5.4532e-5, rtol=1e-4)
    assert process.posterior_variance[0] == 0.0


def test_q_equals_the_official_code(golden):
    ops, process = golden("diffusion_ops"), linear()
    x_0, t, eps = ops["x_start"], ops["t"], ops["noise"]
    assert_close(jax.jit(diffusion.q_sample)(process, x_0=x_0, t=t, eps=eps), ops["q_sample"])
    mean, variance, log_variance = jax.jit(diffusion.q_mean_variance)(process, x_0=x_0, t=t)
    assert_close(mean, ops["q_mean"])
    np.testing.assert_allclose(variance, ops["q_variance"], rtol=0, atol=1e-7)
    assert_close(log_variance, ops["q_log_variance"])
    mean, variance, log_variance = jax.jit(diffusion.q_posterior)(process, x_0=x_0, x_t=ops["q_sample"], t=t)
    assert_close(mean, ops["q_posterior_mean"])
    np.testing.assert_allclose(variance, ops["q_posterior_variance"], rtol=1e-5)
    np.testing.assert_allclose(log_variance, ops["q_posterior_log_variance_clipped"], rtol=1e-5)
    for mean_type, prediction, official in (
        ("eps", "noise", "predict_xstart_from_eps"),
        ("xprev", "step_noise", "predict_xstart_from_xprev"),
    ):
        process = linear(mean_type=mean_type)
        x_0_pred = jax.jit(diffusion.predict_x_0)(process, prediction=ops[prediction], x_t=ops["q_sample"], t=t)
        assert_close(x_0_pred, ops[official])


def official_choices():
    """Lists the parametrizations that the p_mean_variance of the official code takes."""
    return [(mean, var) for mean in ("xprev", "xstart", "eps") for var in ("learned", "fixedsmall", "fixedlarge")]


def process_and_output(ops, mean_type, var_type):
    """Makes the process, and reads what the recorded denoise function gave at the recorded x_t."""
    output = ops["denoise/learned" if var_type == "learned" else "denoise/fixed"]
    return linear(mean_type=mean_type, var_type=var_type), output


@pytest.mark.parametrize(("mean_type", "var_type"), official_choices())
@pytest.mark.parametrize("clip", [False, True])
def test_p_and_the_bound_equal_the_official_code(golden, mean_type, var_type, clip):
    ops = golden("diffusion_ops")
    process, output = process_and_output(ops, mean_type, var_type)
    predicted = jax.jit(diffusion.p_mean_variance, static_argnames="clip")(
        process, model_output=output, x_t=ops["q_sample"], t=ops["t"], clip=clip
    )
    name = f"{mean_type}/{var_type}/clip{clip:d}"
    fields = dict(mean="mean", variance="variance", log_variance="log_variance", x_0="pred_xstart")
    for field, official in fields.items():
        assert_close(getattr(predicted, field), ops[f"p_mean_variance/{name}/{official}"])
    terms, x_0 = jax.jit(diffusion.vb_terms_bpd, static_argnames="clip")(
        process, model_output=output, x_0=ops["x_start"], x_t=ops["q_sample"], t=ops["t"], clip=clip
    )
    assert_bpd(terms, ops[f"vb_terms_bpd/{name}"], ops["t"])
    assert_close(x_0, ops[f"p_mean_variance/{name}/pred_xstart"])


def assert_bpd(actual, expected, t):
    np.testing.assert_allclose(actual[t == 0], expected[t == 0], rtol=1e-3)
    np.testing.assert_allclose(actual[t > 0], expected[t > 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mean_type", "var_type", "loss_type"),
    [
        (*choice, loss)
        for choice in official_choices()
        for loss in ("mse", "kl")
        if (choice[1], loss) != ("learned", "mse")
    ],
)
def test_training_losses_equal_the_official_code(golden, mean_type, var_type, loss_type):
    ops = golden("diffusion_ops")
    losses = diffusion.training_losses(
        linear(mean_type=mean_type, var_type=var_type),
        fixed_denoise_fn(ops["denoise_coef"], learned=var_type == "learned"),
        x_0=ops["x_start"],
        t=ops["t"],
        eps=ops["noise"],
        loss_type=loss_type,
    )
    assert_bpd(losses, ops[f"training_losses/{loss_type}/{mean_type}/{var_type}"], ops["t"])


def test_the_prior_term_equals_the_official_code_and_its_closed_form(golden):
    ops = golden("diffusion_ops")
    np.testing.assert_allclose(diffusion.prior_bpd(linear(), x_0=ops["x_start"]), ops["prior_bpd"], rtol=0, atol=1e-7)
    half = jnp.full((1, 2, 2, 1), 0.5)  # E[x^2] = 0.25
    np.testing.assert_allclose(diffusion.prior_bpd(linear(), x_0=half), 7.3e-6, rtol=0.01)


def true_prediction(process, *, x_0, x_t, t, eps):
    """Computes what a network that knows x_0 would say, whatever it is asked for; from the definitions."""
    alpha_cumprod = np.asarray(process.alphas_cumprod)[t].reshape(-1, 1, 1, 1)
    return {
        "eps": eps,
        "xstart": x_0,
        "xprev": diffusion.q_posterior(process, x_0=x_0, x_t=x_t, t=t)[0],
        "v": np.sqrt(alpha_cumprod) * eps - np.sqrt(1 - alpha_cumprod) * x_0,
    }[process.mean_type]


@pytest.mark.parametrize("mean_type", diffusion.MEAN_TYPES)
def test_every_parametrization_says_the_same_of_the_truth(mean_type):
    rng = np.random.default_rng(1)
    x_0 = rng.uniform(-1, 1, (3, 4, 5, 2)).astype(np.float32)
    eps = rng.standard_normal(x_0.shape).astype(np.float32)
    t = np.array([3, 300, 700])
    process = linear(mean_type=mean_type, var_type="fixedsmall")
    x_t = diffusion.q_sample(process, x_0=x_0, t=t, eps=eps)
    truth = true_prediction(process, x_0=x_0, x_t=x_t, t=t, eps=eps)
    predicted = diffusion.p_mean_variance(process, model_output=truth, x_t=x_t, t=t, clip=False)
    np.testing.assert_allclose(predicted.x_0, x_0, atol=2e-3)
    np.testing.assert_allclose(predicted.mean, diffusion.q_posterior(process, x_0=x_0, x_t=x_t, t=t)[0], atol=1e-4)
    losses = functools.partial(diffusion.training_losses, process, lambda x, t: truth, x_0=x_0, t=t, eps=eps)
    np.testing.assert_allclose(losses(), 0.0, atol=1e-9)
    np.testing.assert_allclose(losses(loss_type="kl"), 0.0, atol=1e-5)  # p is q there
    score = diffusion.score(process, model_output=truth, x_t=x_t, t=t)
    deviation = np.asarray(process.sqrt_one_minus_alphas_cumprod)[t].reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(score * deviation, -eps, atol=2e-3)  # the score of q(x_t | x_0)


def test_the_score_of_gaussian_data_is_that_of_their_density():
    """q(x_t) is a Gaussian whose log-density JAX differentiates."""
    process, t, deviation = linear(), jnp.array([200]), 0.5
    alpha_cumprod = process.alphas_cumprod[200]
    variance = alpha_cumprod * deviation**2 + 1 - alpha_cumprod
    x_t = jnp.linspace(-2, 2, 12).reshape(1, 2, 3, 2)
    eps = jnp.sqrt(1 - alpha_cumprod) * x_t / variance  # the best prediction for data of mean 0
    log_density = jax.grad(lambda x: jax.scipy.stats.norm.logpdf(x, scale=jnp.sqrt(variance)).sum())
    score = diffusion.score(process, model_output=eps, x_t=x_t, t=t)
    np.testing.assert_allclose(score, log_density(x_t), rtol=1e-3, atol=1e-4)


def test_a_step_of_the_sampler_is_langevin_dynamics():
    process, t = linear(), jnp.array([400])
    x_t, eps = jax.random.normal(jax.random.key(0), (2, 1, 3, 3, 1))
    predicted = diffusion.p_mean_variance(process, model_output=eps, x_t=x_t, t=t, clip=False)
    beta = np.linspace(1e-4, 0.02, 1000)[400]
    langevin = (x_t + beta * diffusion.score(process, model_output=eps, x_t=x_t, t=t)) / np.sqrt(1 - beta)
    np.testing.assert_allclose(predicted.mean, langevin, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("mean_type", "var_type"), official_choices())
def test_a_predict_fn_says_what_p_says(golden, mean_type, var_type):
    ops = golden("diffusion_ops")
    process, output = process_and_output(ops, mean_type, var_type)
    x_t, t = jnp.asarray(ops["q_sample"]), ops["t"]
    for constrain, clip in ((diffusion.clip_x_0, True), (None, False)):
        found = diffusion.make_predict_fn(process, lambda x_t, t: output, constrain=constrain)(x_t, t)
        expected = diffusion.p_mean_variance(process, model_output=output, x_t=x_t, t=t, clip=clip)
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_mean_follows_from_the_constrained_x_0():
    """Of any constraint; here x_0 is drawn halfway to grey."""
    process, t = linear(), jnp.array([10, 900])
    x_t, eps = jax.random.normal(jax.random.key(0), (2, 2, 3, 4, 1))
    implied = diffusion.predict_x_0(process, prediction=eps, x_t=x_t, t=t)
    predict_fn = diffusion.make_predict_fn(process, lambda x_t, t: eps, constrain=lambda x_0: 0.5 * x_0)
    found = predict_fn(x_t, t)
    np.testing.assert_allclose(found.x_0, 0.5 * implied, rtol=1e-6)
    mean, _, _ = diffusion.q_posterior(process, x_0=0.5 * implied, x_t=x_t, t=t)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-6)


def test_q_sample_is_eq_4():
    x_0, eps = np.random.default_rng(0).standard_normal((2, 3, 8, 6, 2))  # all sizes differ: no lucky broadcast
    t = np.array([0, 500, 999])
    alpha_cumprod = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))[t].reshape(3, 1, 1, 1)  # not from our schedule
    expected = np.sqrt(alpha_cumprod) * x_0 + np.sqrt(1.0 - alpha_cumprod) * eps
    np.testing.assert_allclose(diffusion.q_sample(linear(), x_0=x_0, t=t, eps=eps), expected, rtol=1e-4, atol=1e-5)


def test_q_sample_has_the_moments_of_eq_4():
    n, process, x_0 = 200_000, linear(), 0.7
    for t in (0, 100, 999):
        eps = jax.random.normal(jax.random.key(t), (n, 1, 1, 1))
        x_t = diffusion.q_sample(process, x_0=jnp.full((n, 1, 1, 1), x_0), t=jnp.full(n, t), eps=eps)
        alpha_cumprod = float(process.alphas_cumprod[t])
        deviation = np.sqrt(1.0 - alpha_cumprod)
        assert abs(float(x_t.mean()) - np.sqrt(alpha_cumprod) * x_0) < 5 * deviation / np.sqrt(n)
        assert abs(float(x_t.std()) / deviation - 1.0) < 5 / np.sqrt(2 * n)


def test_one_step_after_another_is_many_steps_at_once():
    """q(x_t | x_0) by Eq. 4 is the product of the steps q(x_t | x_{t-1}) of Eq. 2."""
    betas = beta_schedule("quad", 50)
    mean, variance = 1.0, 0.0
    for beta in betas:
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
    process = diffusion.make_process(betas)
    np.testing.assert_allclose(process.sqrt_alphas_cumprod[-1], mean, rtol=1e-6)
    np.testing.assert_allclose(process.sqrt_one_minus_alphas_cumprod[-1] ** 2, variance, rtol=1e-6)


@settings(max_examples=30)
@given(t=st.integers(1, 999), x_0=st.floats(-1, 1), x_t=st.floats(-3, 3))
def test_posterior_is_bayes_rule(t, x_0, x_t):
    """Eqs. 6 and 7 against the product of the two Gaussians q(x_t | x_{t-1}) q(x_{t-1} | x_0)."""
    betas = np.linspace(1e-4, 0.02, 1000)
    before = np.prod(1.0 - betas[:t])
    precision = (1.0 - betas[t]) / betas[t] + 1.0 / (1.0 - before)
    mean = (np.sqrt(1.0 - betas[t]) / betas[t] * x_t + np.sqrt(before) / (1.0 - before) * x_0) / precision
    shape = (1, 1, 1, 1)
    actual, variance, _ = diffusion.q_posterior(
        linear(), x_0=jnp.full(shape, x_0), x_t=jnp.full(shape, x_t), t=jnp.array([t])
    )
    np.testing.assert_allclose(variance.item(), 1.0 / precision, rtol=1e-4)
    np.testing.assert_allclose(actual.item(), mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (dict(mean_type="epsilon"), "Unknown mean_type 'epsilon'; choose one of eps"),
        (dict(var_type="large"), "Unknown var_type 'large'"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        linear(**choices)


@pytest.mark.parametrize(
    ("var_type", "loss_type", "message"),
    [
        ("fixedlarge", "l1", "Unknown loss_type 'l1'; choose one of mse, kl"),
        ("learned", "mse", "loss_type='mse' does not train a variance"),
        ("learned_range", "mse", "var_type='learned_range' would never be learned"),
        ("fixedsmall", "hybrid", "var_type='fixedsmall' has none to learn"),
    ],
)
def test_losses_that_make_no_sense_are_refused(var_type, loss_type, message):
    process, x_0 = linear(var_type=var_type), jnp.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match=message):
        diffusion.check_loss(process, loss_type)
    with pytest.raises(ValueError, match=message):
        diffusion.training_losses(process, lambda x, t: x, x_0=x_0, t=jnp.zeros(1, int), eps=x_0, loss_type=loss_type)


@pytest.mark.parametrize("var_type", diffusion.VAR_TYPES)
def test_a_process_can_be_trained_by_some_loss(var_type):
    for loss_type in ("kl", "hybrid") if var_type.startswith("learned") else ("mse", "kl"):
        diffusion.check_loss(linear(var_type=var_type), loss_type)


def test_impossible_betas_are_refused():
    with pytest.raises(ValueError, match=r"betas must be at least 2 numbers in \(0, 1\]"):
        diffusion.make_process(np.array([0.1, 1.5]))
    with pytest.raises(ValueError, match=r"ends in beta = 1 \(jsd\).*Predict xstart, xprev or v"):
        diffusion.make_process(beta_schedule("jsd", 10))


@pytest.mark.parametrize("mean_type", ["xstart", "xprev", "v"])
def test_a_process_that_ends_in_pure_noise_predicts_what_it_can(mean_type):
    process = diffusion.make_process(beta_schedule("jsd", 10), mean_type=mean_type)
    x_t, t = jnp.ones((1, 2, 2, 1)), jnp.array([9])
    predicted = diffusion.p_mean_variance(process, model_output=0.5 * x_t, x_t=x_t, t=t)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(predicted))


def test_shapes_that_do_not_fit_are_refused():
    x_0 = jnp.zeros((2, 4, 4, 3))
    with pytest.raises(AssertionError):
        diffusion.q_sample(linear(), x_0=x_0, t=jnp.zeros(3, int), eps=x_0)
    with pytest.raises(AssertionError):
        diffusion.q_sample(linear(), x_0=x_0, t=jnp.zeros(2, int), eps=x_0[:1])
    with pytest.raises(AssertionError):
        diffusion.p_mean_variance(linear(), model_output=jnp.zeros((2, 4, 4, 6)), x_t=x_0, t=jnp.zeros(2, int))
