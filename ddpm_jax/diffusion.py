"""Gaussian diffusion: forward process, posterior, the network's prediction, the bound and the training losses.

Ho et al. 2020, Sections 2 and 3. Pure functions of arrays and a `Process`.
Images are [B, H, W, C] in [-1, 1]; `t` is 0-based, so t = 0 is the paper's t = 1.
"""

from collections.abc import Callable

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.gaussian import discretized_gaussian_log_likelihood, normal_kl

DenoiseFn = Callable[[jax.Array, jax.Array], jax.Array]  # (x_t, t) -> model output

MEAN_TYPES = ("eps", "xstart", "xprev", "v")
VAR_TYPES = ("fixedsmall", "fixedlarge", "learned")
LOSS_TYPES = ("mse", "kl")


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
    model_variance: jax.Array  # sigma_t^2 of p, by var_type; not used where it is learned
    model_log_variance: jax.Array
    mean_type: str = flax.struct.field(pytree_node=False)
    var_type: str = flax.struct.field(pytree_node=False)
    loss_type: str = flax.struct.field(pytree_node=False)

    @property
    def num_timesteps(self) -> int:
        """T."""
        return self.alphas_cumprod.shape[0]

    @property
    def outputs_per_channel(self) -> int:
        """Channels that the network puts out for each of the image: 2 where it also predicts the log-variance."""
        return 2 if self.var_type == "learned" else 1


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
        mean_type: what the network predicts: `eps`, the noise (Eq. 11); `xstart`, x_0; `xprev`, the mean of x_{t-1}
            (Eq. 8, "mu-tilde prediction" of Table 2); `v`, sqrt(alpha-bar) eps - sqrt(1 - alpha-bar) x_0 (Salimans and
            Ho 2022, which is not in the paper).
        var_type: sigma_t^2 of p: `fixedlarge`, beta_t (the paper's CIFAR-10 models); `fixedsmall`, the posterior
            variance beta-tilde_t (its 256x256 models); `learned`, whose logarithm is the second half of the network's
            channels ("learned diagonal" of Table 2).
        loss_type: `mse`, the unweighted squared error of what the network predicts (L_simple, Eq. 14, for `eps`);
            `kl`, the variational bound (Eq. 5).

    Raises:
        ValueError: for betas out of range, an unknown choice, or a combination that makes no sense.
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0.0) & (betas <= 1.0)):
        raise ValueError(f"betas must be at least 2 numbers in (0, 1], in one dimension; got shape {betas.shape}.")
    alphas_cumprod = np.cumprod(1.0 - betas)
    _check_choices(mean_type, var_type, loss_type, ends_in_pure_noise=alphas_cumprod[-1] == 0.0)
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)
    model_variance = posterior_variance if var_type == "fixedsmall" else betas
    with np.errstate(divide="ignore"):  # jsd ends in alpha-bar = 0, and without eps prediction nobody divides by it
        recip_alphas_cumprod = 1.0 / alphas_cumprod
    tables = dict(
        alphas_cumprod=alphas_cumprod,
        sqrt_alphas_cumprod=np.sqrt(alphas_cumprod),
        sqrt_one_minus_alphas_cumprod=np.sqrt(1.0 - alphas_cumprod),
        log_one_minus_alphas_cumprod=np.log(1.0 - alphas_cumprod),
        sqrt_recip_alphas_cumprod=np.sqrt(recip_alphas_cumprod),
        sqrt_recipm1_alphas_cumprod=np.sqrt(recip_alphas_cumprod - 1.0),
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


def _check_choices(mean_type: str, var_type: str, loss_type: str, *, ends_in_pure_noise: bool) -> None:
    for field, value, choices in (
        ("mean_type", mean_type, MEAN_TYPES),
        ("var_type", var_type, VAR_TYPES),
        ("loss_type", loss_type, LOSS_TYPES),
    ):
        if value not in choices:
            raise ValueError(f"Unknown {field} {value!r}; choose one of {', '.join(choices)}.")
    if mean_type == "eps" and ends_in_pure_noise:
        raise ValueError(
            "mean_type='eps' cannot be used with a schedule that ends in beta = 1 (jsd): x_T is pure noise there, from "
            "which no x_0 follows. Predict xstart, xprev or v, or use another schedule."
        )
    if var_type == "learned" and loss_type == "mse":
        raise ValueError(
            "loss_type='mse' does not train a variance, so var_type='learned' would never be learned. Use "
            "loss_type='kl', or a fixed variance."
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


def predict_x_0(process: Process, *, prediction: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """The x_0 [B, H, W, C], unclipped, that follows from what the network predicts of x_t (Sections 3.2 and 3.3).

    Args:
        process: coefficients, and what the network predicts.
        prediction: [B, H, W, C], the network's output without its log-variances.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).
    """
    chex.assert_equal_shape([x_t, prediction])
    match process.mean_type:
        case "eps":  # Eq. 4, solved for x_0
            scale, noise = _at(process.sqrt_recip_alphas_cumprod, t), _at(process.sqrt_recipm1_alphas_cumprod, t)
            return scale * x_t - noise * prediction
        case "xstart":
            return prediction
        case "xprev":  # the mean of Eq. 7, solved for x_0
            weight_x_0, weight_x_t = _at(process.posterior_mean_coef1, t), _at(process.posterior_mean_coef2, t)
            return (prediction - weight_x_t * x_t) / weight_x_0
        case "v":
            scale, noise = _at(process.sqrt_alphas_cumprod, t), _at(process.sqrt_one_minus_alphas_cumprod, t)
            return scale * x_t - noise * prediction
    raise AssertionError(process.mean_type)


def p_mean_variance(
    process: Process, *, model_output: jax.Array, x_t: jax.Array, t: jax.Array, clip: bool = True
) -> Prediction:
    """p(x_{t-1} | x_t), Eq. 1, from what the network said about x_t.

    Args:
        process: coefficients, and what the network predicts.
        model_output: what `denoise_fn(x_t, t)` returned: [B, H, W, C], or with learned variances [B, H, W, 2C], the
            log-variances second.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).
        clip: clip the implied x_0 to [-1, 1] before the mean is computed from it, as the official samplers do; where
            the network predicts the mean itself (`xprev`), only the reported x_0 is clipped.

    Raises:
        AssertionError: while tracing, if the shapes do not fit.
    """
    prediction, variance, log_variance = _split(process, model_output, x_t, t)
    x_0 = predict_x_0(process, prediction=prediction, x_t=x_t, t=t)
    if clip:
        x_0 = jnp.clip(x_0, -1.0, 1.0)
    mean = prediction if process.mean_type == "xprev" else q_posterior(process, x_0=x_0, x_t=x_t, t=t)[0]
    return Prediction(mean=mean, variance=variance, log_variance=log_variance, x_0=x_0)


def _split(
    process: Process, model_output: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the network predicts of the mean, the variance and the log-variance of p, each [B, H, W, C]."""
    chex.assert_shape(model_output, (*x_t.shape[:-1], process.outputs_per_channel * x_t.shape[-1]))
    chex.assert_shape(t, x_t.shape[:1])
    if process.var_type == "learned":
        prediction, log_variance = jnp.split(model_output, 2, axis=-1)
        return prediction, jnp.exp(log_variance), log_variance
    variance = jnp.broadcast_to(_at(process.model_variance, t), x_t.shape)
    return model_output, variance, jnp.broadcast_to(_at(process.model_log_variance, t), x_t.shape)


def score(process: Process, model_output: jax.Array, x_t: jax.Array, t: jax.Array) -> jax.Array:
    """The gradient of log q(x_t) with respect to x_t that the network implies: -eps / sqrt(1 - alpha-bar_t).

    Section 3.2: predicting eps is denoising score matching over the noise levels t, and a step of Algorithm 2 is one
    of Langevin dynamics. With s the score,
        x_{t-1} = (x_t + beta_t s(x_t, t)) / sqrt(1 - beta_t) + sigma_t z.

    Args:
        process: coefficients, and what the network predicts.
        model_output: what `denoise_fn(x_t, t)` returned.
        x_t: [B, H, W, C].
        t: [B] int32 in [0, T).

    Returns:
        [B, H, W, C], unclipped, in units of 1 / data.
    """
    prediction, _, _ = _split(process, model_output, x_t, t)
    x_0 = predict_x_0(process, prediction=prediction, x_t=x_t, t=t)
    return (_at(process.sqrt_alphas_cumprod, t) * x_0 - x_t) / (1.0 - _at(process.alphas_cumprod, t))


def training_losses(
    process: Process, denoise_fn: DenoiseFn, *, x_0: jax.Array, t: jax.Array, eps: jax.Array
) -> jax.Array:
    """The loss of each image, by the process's `loss_type`.

    Args:
        process: coefficients and choices.
        denoise_fn: the network, `(x_t, t) -> model_output`.
        x_0: [B, H, W, C] in [-1, 1].
        t: [B] int32 in [0, T).
        eps: [B, H, W, C] standard normal noise.

    Returns:
        [B] float32. `mse`: the squared error of what the network predicts, mean over H, W and C; for eps L_simple
        (Eq. 14), about 1 for an untrained network. `kl`: the term t of the bound (Eq. 5) in bits/dim, not multiplied
        by T; its mean over uniform t times T, and `prior_bpd`, is the whole.
    """
    x_t = q_sample(process, x_0=x_0, t=t, eps=eps)
    model_output = denoise_fn(x_t, t).astype(jnp.float32)
    if process.loss_type == "kl":
        return vb_terms_bpd(process, model_output=model_output, x_0=x_0, x_t=x_t, t=t, clip=False)[0]
    match process.mean_type:
        case "eps":
            target = eps
        case "xstart":
            target = x_0
        case "xprev":
            target, _, _ = q_posterior(process, x_0=x_0, x_t=x_t, t=t)
        case "v":
            target = _at(process.sqrt_alphas_cumprod, t) * eps - _at(process.sqrt_one_minus_alphas_cumprod, t) * x_0
    chex.assert_equal_shape([model_output, target])
    return _mean_flat((model_output - target) ** 2)


def vb_terms_bpd(
    process: Process, *, model_output: jax.Array, x_0: jax.Array, x_t: jax.Array, t: jax.Array, clip: bool
) -> tuple[jax.Array, jax.Array]:
    """The terms L_{t-1} of the variational bound (Eq. 5): L_0, the decoder's (Eq. 13), where t = 0.

    Args:
        process: coefficients, and what the network predicts.
        model_output: what `denoise_fn(x_t, t)` returned.
        x_0: [B, H, W, C] in [-1, 1].
        x_t: [B, H, W, C], drawn from q(x_t | x_0).
        t: [B] int32 in [0, T).
        clip: clip the predicted x_0, as the official evaluation does and the training loss does not.

    Returns:
        [B] in bits/dim, and the predicted x_0 [B, H, W, C].
    """
    mean, _, log_variance = q_posterior(process, x_0=x_0, x_t=x_t, t=t)
    predicted = p_mean_variance(process, model_output=model_output, x_t=x_t, t=t, clip=clip)
    divergence = normal_kl(
        mean1=mean, log_variance1=log_variance, mean2=predicted.mean, log_variance2=predicted.log_variance
    )
    decoder = -discretized_gaussian_log_likelihood(x_0, mean=predicted.mean, log_scale=0.5 * predicted.log_variance)
    nats = jnp.where(t == 0, _mean_flat(decoder), _mean_flat(divergence))
    return nats / np.log(2.0), predicted.x_0


def prior_bpd(process: Process, *, x_0: jax.Array) -> jax.Array:
    """L_T = KL(q(x_T | x_0) || N(0, I)) of Eq. 5, [B] in bits/dim; nothing in it is learned."""
    last = jnp.full(x_0.shape[:1], process.num_timesteps - 1)
    mean, _, log_variance = q_mean_variance(process, x_0=x_0, t=last)
    zero = jnp.zeros_like(log_variance)
    return _mean_flat(normal_kl(mean1=mean, log_variance1=log_variance, mean2=zero, log_variance2=zero)) / np.log(2.0)


def _mean_flat(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2, 3))  # [B]
