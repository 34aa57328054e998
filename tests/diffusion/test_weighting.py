import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import diffusion
from ddpm_jax.schedule import beta_schedule

BETAS = beta_schedule("cosine", 60)
ALPHAS_CUMPROD = np.cumprod(1.0 - BETAS)
SNR = ALPHAS_CUMPROD / (1.0 - ALPHAS_CUMPROD)


def test_log_snr_is_its_definition():
    for betas in (BETAS, beta_schedule("linear", 1000)):
        alphas_cumprod = np.cumprod(1.0 - betas)
        expected = np.log(alphas_cumprod) - np.log1p(-alphas_cumprod)
        np.testing.assert_allclose(diffusion.make_process(betas).log_snr, expected, rtol=0, atol=2e-6)
    last = diffusion.make_process(beta_schedule("jsd", 10), mean_type="xstart").log_snr[-1]
    assert last == -np.inf


@pytest.mark.parametrize(
    ("mean_type", "weighting", "expected"),
    [
        ("eps", "min_snr_5", np.minimum(SNR, 5) / SNR),
        ("xstart", "min_snr_5", np.minimum(SNR, 5)),
        ("v", "min_snr_0.5", np.minimum(SNR, 0.5) / (SNR + 1)),
        ("eps", "p2_1", 1 / (1 + SNR)),
        ("eps", "p2_0.5", (1 + SNR) ** -0.5),
    ],
)
def test_the_weights_are_those_of_the_papers(mean_type, weighting, expected):
    process = diffusion.make_process(BETAS, mean_type=mean_type)
    np.testing.assert_allclose(diffusion.loss_weights(process, weighting), expected, rtol=1e-5)


@pytest.mark.parametrize("weighting", ["min_snr_5", "p2_1"])
def test_a_weighting_means_the_same_whatever_the_network_predicts(weighting):
    """A network that errs by the same x_0 has the same loss, in each parametrization."""
    rng, t = np.random.default_rng(0), np.array([0, 1, 20, 58])
    x_0, eps, error = rng.uniform(-1, 1, (3, 4, 4, 4, 1)).astype(np.float32)
    losses = []
    for mean_type in diffusion.MEAN_TYPES:
        process = diffusion.make_process(BETAS, mean_type=mean_type)
        x_t = diffusion.q_sample(process, x_0=x_0, t=t, eps=eps)
        scale, noise = (
            np.float32(f(ALPHAS_CUMPROD[t]))[:, None, None, None] for f in (np.sqrt, lambda a: np.sqrt(1 - a))
        )
        wrong = x_0 + error
        said = {
            "eps": (x_t - scale * wrong) / noise,
            "xstart": wrong,
            "xprev": diffusion.q_posterior(process, x_0=wrong, x_t=x_t, t=t)[0],
            "v": (scale * x_t - wrong) / noise,
        }[mean_type]
        losses.append(
            diffusion.training_losses(process, lambda *_: said, x_0=x_0, t=t, eps=eps, weighting=weighting)  # noqa: B023
        )
    np.testing.assert_allclose(losses, [losses[1]] * 4, rtol=2e-3)
    assert np.all(losses[1] > 1e-5)


def test_only_the_squared_error_of_hybrid_is_weighted():
    process, shape = diffusion.make_process(BETAS, var_type="learned_range"), (3, 2, 2, 1)
    t = np.array([1, 20, 58])
    x_0, eps = jax.random.normal(jax.random.key(0), (2, *shape))
    output = jnp.concatenate([eps + 0.3, jnp.zeros(shape)], axis=-1)
    losses = functools.partial(
        diffusion.training_losses, process, lambda *_: output, x_0=x_0, t=t, eps=eps, loss_type="hybrid"
    )
    added = losses(weighting="p2_1") - losses()
    np.testing.assert_allclose(added, 0.09 * (1 / (1 + SNR[t]) - 1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("weighting", ["min_snr", "p2_", "p2_0", "min_snr_-1", "snr_5", "p2_1e3"])
def test_what_is_no_weighting_is_refused(weighting):
    with pytest.raises(ValueError, match=f"The loss weighting '{weighting}' must be '', min_snr_GAMMA or p2_GAMMA"):
        diffusion.check_loss(diffusion.make_process(BETAS), "mse", weighting)


def test_the_bound_has_its_own_weights():
    with pytest.raises(ValueError, match="'p2_1' is of a squared error, and loss_type='kl' has none"):
        diffusion.check_loss(diffusion.make_process(BETAS), "kl", "p2_1")
