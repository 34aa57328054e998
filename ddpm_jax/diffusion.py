"""Gaussian diffusion: forward process, posterior, the network's prediction and the training loss.

Ho et al. 2020, Sections 2 and 3. Pure functions of arrays and a `Process`.
Images are [B, H, W, C] in [-1, 1]; `t` is 0-based, so t = 0 is the paper's t = 1.
"""

from collections.abc import Callable

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]  # (x_t, t) -> model output

MEAN_TYPES = ("eps",)
VAR_TYPES = ("fixedsmall", "fixedlarge")
LOSS_TYPES = ("mse",)


@flax.struct.dataclass
class Process:
    """The coefficients of a diffusion process of T steps, float32 [T], and the choices that define p and the loss.

    Each table is indexed by t, never by t - 1: JAX wraps -1 and clamps past the end, and neither raises.
    """

    alphas_cumprod: jax.Array  # alpha-bar_t, Eq. 4
    sqrt_alphas_cumprod: jax.Array
    sqrt_one_minus_alphas_cumprod: jax.Array
    log_one_minus_alphas_cumprod: jax.Array
    sqrt_recip_alphas_cumprod: jax.Array  # x_0 = this * x_t - the next * eps
    sqrt_recipm1_alphas_cumprod: jax.Array
    posterior_mean_coef1: jax.Array  # of x_0, Eq. 7
    posterior_mean_coef2: jax.Array  # of x_t, Eq. 7
    posterior_variance: jax.Array  # beta-tilde_t, Eq. 7; 0 at t = 0
    posterior_log_variance: jax.Array  # at t = 0 that of t = 1
    model_variance: jax.Array  # sigma_t^2 of p, by var_type
    model_log_variance: jax.Array
    mean_type: str = flax.struct.field(pytree_node=False)
    var_type: str = flax.struct.field(pytree_node=False)
    loss_type: str = flax.struct.field(pytree_node=False)

    @property
    def num_timesteps(self) -> int:
        """T."""
        return self.alphas_cumprod.shape[0]


@flax.struct.dataclass
class Prediction:
    """p(x_{t-1} | x_t) as the network predicts it; each [B, H, W, C]."""

    mean: jax.Array
    variance: jax.Array
    log_variance: jax.Array
    x_0: jax.Array  # the clean image that the prediction implies


def make_process(
    betas: np.ndarray, *, mean_type: str = "eps", var_type: str = "fixedlarge", loss_type: str = "mse"
) -> Process:
    """Computes every coefficient of the process in float64 and casts it to float32.

    As in the official code (diffusion_utils_2.py), the log-variances at t = 0 are those of the posterior at t = 1: the
    posterior variance at t = 0 is 0, its logarithm infinite. For `fixedlarge` that makes the log-variance at t = 0
    differ from log beta_1; only log-variances enter sampling and likelihoods, and sampling adds no noise at t = 0.

    Args:
        betas: [T] variances in (0, 1], as `schedule.beta_schedule` returns them.
        mean_type: what the network predicts: `eps`, the noise (Eq. 11).
        var_type: sigma_t^2 of p: `fixedlarge`, beta_t (the paper's CIFAR-10 models); `fixedsmall`, the posterior
            variance beta-tilde_t (its 256x256 models).
        loss_type: `mse`, L_simple (Eq. 14).

    Raises:
        ValueError: for betas out of range, an unknown choice, or a combination that makes no sense.
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0.0) & (betas <= 1.0)):
        raise ValueError(f"betas must be at least 2 numbers in (0, 1], in one dimension; got shape {betas.shape}.")
    for field, value, choices in (
        ("mean_type", mean_type, MEAN_TYPES),
        ("var_type", var_type, VAR_TYPES),
        ("loss_type", loss_type, LOSS_TYPES),
    ):
        if value not in choices:
            raise ValueError(f"Unknown {field} {value!r}; choose one of {', '.join(choices)}.")
    alphas_cumprod = np.cumprod(1.0 - betas)
    if alphas_cumprod[-1] == 0.0:
        raise ValueError(
            f"mean_type={mean_type!r} cannot be used with a schedule that ends in beta = 1 (jsd): x_T is pure noise "
            "there, from which no x_0 follows. Use another schedule."
        )
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    model_variance = {"fixedsmall": posterior_variance, "fixedlarge": betas}[var_type]
    tables = dict(
        alphas_cumprod=alphas_cumprod,
        sqrt_alphas_cumprod=np.sqrt(alphas_cumprod),
        sqrt_one_minus_alphas_cumprod=np.sqrt(1.0 - alphas_cumprod),
        log_one_minus_alphas_cumprod=np.log(1.0 - alphas_cumprod),
        sqrt_recip_alphas_cumprod=np.sqrt(1.0 / alphas_cumprod),
        sqrt_recipm1_alphas_cumprod=np.sqrt(1.0 / alphas_cumprod - 1.0),
        posterior_mean_coef1=betas * np.sqrt(alphas_cumprod_prev) / (1.0 - alphas_cumprod),
        posterior_mean_coef2=(1.0 - alphas_cumprod_prev) * np.sqrt(1.0 - betas) / (1.0 - alphas_cumprod),
        posterior_variance=posterior_variance,
        posterior_log_variance=np.log(np.append(posterior_variance[1], posterior_variance[1:])),
        model_variance=model_variance,
        model_log_variance=np.log(np.append(posterior_variance[1], model_variance[1:])),
    )
    return Process(
        **{name: jnp.asarray(table, jnp.float32) for name, table in tables.items()},
        mean_type=mean_type,
        var_type=var_type,
        loss_type=loss_type,
    )


def _at(table: jax.Array, t: jax.Array) -> jax.Array:
    return table[t][:, None, None, None]  # [B, 1, 1, 1]


def q_mean_variance(process: Process, *, x_0: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q(x_t | x_0), Eq. 4: the mean [B, H, W, C], the variance and its logarithm [B, 1, 1, 1]."""
    chex.assert_shape(t, x_0.shape[:1])
    mean = _at(process.sqrt_alphas_cumprod, t) * x_0
    return mean, 1.0 - _at(process.alphas_cumprod, t), _at(process.log_one_minus_alphas_cumprod, t)


def q_sample(process: Process, *, x_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Draws x_t from q(x_t | x_0), Eq. 4, with the noise given by the caller.

    Args:
        process: coefficients of T timesteps.
        x_0: [B, H, W, C] clean images in [-1, 1].
        t: [B] int32 timesteps in [0, T); the caller ensures the range, as JAX would clamp.
        eps: [B, H, W, C] standard normal noise, also the network's target (Eq. 14).

    Returns:
        [B, H, W, C] noised images, in units of the data; not confined to [-1, 1].

    Raises:
        AssertionError: while tracing, if `eps` is not shaped like `x_0`, or `t` is not [B].
    """
    chex.assert_equal_shape([x_0, eps])
    chex.assert_shape(t, x_0.shape[:1])
    return _at(process.sqrt_alphas_cumprod, t) * x_0 + _at(process.sqrt_one_minus_alphas_cumprod, t) * eps


def q_posterior(
    process: Process, *, x_0: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q(x_{t-1} | x_t, x_0), Eqs. 6 and 7: the mean [B, H, W, C], the variance and its logarithm [B, 1, 1, 1].

    At t = 0 the posterior is x_0 itself: variance 0, with the log-variance of t = 1 in place of minus infinity.
    """
    chex.assert_equal_shape([x_0, x_t])
    chex.assert_shape(t, x_0.shape[:1])
    mean = _at(process.posterior_mean_coef1, t) * x_0 + _at(process.posterior_mean_coef2, t) * x_t
    return mean, _at(process.posterior_variance, t), _at(process.posterior_log_variance, t)


def predict_x_0_from_eps(process: Process, *, x_t: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Solves Eq. 4 for x_0 [B, H, W, C], given x_t and the noise in it (Section 3.2, below Eq. 9)."""
    chex.assert_equal_shape([x_t, eps])
    return _at(process.sqrt_recip_alphas_cumprod, t) * x_t - _at(process.sqrt_recipm1_alphas_cumprod, t) * eps


def p_mean_variance(
    process: Process, *, model_output: jax.Array, x_t: jax.Array, t: jax.Array, clip: bool = True
) -> Prediction:
    """p(x_{t-1} | x_t), Eq. 1, from what the network said about x_t.

    Args:
        process: coefficients, and what the network predicts.
        model_output: [B, H, W, C], what `denoise_fn(x_t, t)` returned.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).
        clip: clip the implied x_0 to [-1, 1] before the mean is computed from it, as the official samplers do.

    Raises:
        AssertionError: while tracing, if `model_output` is not shaped like `x_t`, or `t` is not [B].
    """
    chex.assert_equal_shape([model_output, x_t])
    x_0 = predict_x_0_from_eps(process, x_t=x_t, t=t, eps=model_output)
    if clip:
        x_0 = jnp.clip(x_0, -1.0, 1.0)
    mean, _, _ = q_posterior(process, x_0=x_0, x_t=x_t, t=t)
    variance = jnp.broadcast_to(_at(process.model_variance, t), x_t.shape)
    log_variance = jnp.broadcast_to(_at(process.model_log_variance, t), x_t.shape)
    return Prediction(mean=mean, variance=variance, log_variance=log_variance, x_0=x_0)


def training_losses(
    process: Process, denoise_fn: DenoiseFn, *, x_0: jax.Array, t: jax.Array, eps: jax.Array
) -> jax.Array:
    """L_simple, Eq. 14: the mean squared error of the predicted noise.

    Args:
        process: coefficients and choices.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        x_0: [B, H, W, C] in [-1, 1].
        t: [B] int32 in [0, T).
        eps: [B, H, W, C] standard normal noise.

    Returns:
        [B] float32, the mean over H, W and C; about 1 for an untrained network.
    """
    x_t = q_sample(process, x_0=x_0, t=t, eps=eps)
    model_output = denoise_fn(x_t, t)
    chex.assert_equal_shape([model_output, eps])
    return jnp.mean((model_output.astype(jnp.float32) - eps) ** 2, axis=(1, 2, 3))
