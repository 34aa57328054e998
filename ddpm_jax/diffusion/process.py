"""The coefficients of a diffusion process, and the forward process q with its posteriors (Section 2 of the paper)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.arguments import check_alike, check_shape, check_timesteps

MEAN_TYPES = ("eps", "xstart", "xprev", "v")
VAR_TYPES = ("fixedsmall", "fixedlarge", "learned", "learned_range")
LEARNED = VAR_TYPES[2:]
_LARGEST_X_T = 100.0  # of any pixel: it is about normal


@flax.struct.dataclass
class Process:
    """The coefficients of a diffusion process of T steps, float32 [T], and the choices that define p.

    Each table is indexed by t, never by t - 1: JAX wraps -1 and clamps past the end, and neither raises.
    """

    alphas_cumprod: jax.Array  # alpha-bar_t, Eq. 4
    one_minus_alphas_cumprod: jax.Array  # the difference of float32 numbers would be off by 1e-4 at small t
    sqrt_alphas_cumprod: jax.Array
    sqrt_one_minus_alphas_cumprod: jax.Array
    log_one_minus_alphas_cumprod: jax.Array
    sqrt_recip_alphas_cumprod: jax.Array  # x_0 = this * x_t - the next * eps
    sqrt_recipm1_alphas_cumprod: jax.Array
    posterior_mean_coef1: jax.Array  # of x_0, Eq. 7
    posterior_mean_coef2: jax.Array  # of x_t, Eq. 7
    posterior_variance: jax.Array  # beta-tilde_t, Eq. 7; 0 at t = 0
    posterior_log_variance: jax.Array  # at t = 0 that of t = 1
    model_variance: jax.Array  # sigma_t^2 of p, by var_type; the upper end of a learned range; not used if `learned`
    model_log_variance: jax.Array
    timesteps: jax.Array | None  # what the network is given for each t; None: t itself
    mean_type: str = flax.struct.field(pytree_node=False)
    var_type: str = flax.struct.field(pytree_node=False)

    @property
    def num_timesteps(self) -> int:
        """Counts the timesteps: T."""
        return self.alphas_cumprod.shape[0]

    @property
    def log_snr(self) -> jax.Array:
        """Computes the logarithm of the signal-to-noise ratio, alpha-bar_t / (1 - alpha-bar_t), [T] float32."""
        return -2.0 * jnp.log(self.sqrt_recipm1_alphas_cumprod)

    def network_t(self, t: jax.Array) -> jax.Array:
        """Returns what the network is given for t [B], whole or not: t itself, unless the process is respaced."""
        if self.timesteps is None:
            return t
        if jnp.issubdtype(t.dtype, jnp.integer):
            return self.timesteps[t]
        return jnp.interp(t, jnp.arange(len(self.timesteps), dtype=t.dtype), self.timesteps.astype(t.dtype))

    @property
    def outputs_per_channel(self) -> int:
        """Counts the network's outputs for each channel of the image: 2 where it also tells the variance."""
        return 2 if self.var_type in LEARNED else 1


def make_process(
    betas: np.ndarray, *, mean_type: str = "eps", var_type: str = "fixedlarge", timesteps: np.ndarray | None = None
) -> Process:
    """Computes every coefficient of the process in float64 and casts it to float32.

    As in the official code (diffusion_utils_2.py), the log-variances at t = 0 are those of the posterior at t = 1: the
    posterior variance at t = 0 is 0, its logarithm infinite. For `fixedlarge` that makes the log-variance at t = 0
    differ from log beta_1; only log-variances enter sampling and likelihoods, and sampling adds no noise at t = 0. The
    upper end of a learned range is log beta_t at t = 0, too, as in the code of Improved DDPM.

    Args:
        betas: [T] variances in (0, 1], as `schedule.beta_schedule` returns them.
        mean_type: what the network predicts: `eps`, the noise (Eq. 11); `xstart`, x_0; `xprev`, the mean of x_{t-1}
            (Eq. 8, "mu-tilde prediction" of Table 2); `v`, sqrt(alpha-bar) eps - sqrt(1 - alpha-bar) x_0 (Salimans and
            Ho 2022, which is not in the paper).
        var_type: sigma_t^2 of p: `fixedlarge`, beta_t (the paper's CIFAR-10 models); `fixedsmall`, the posterior
            variance beta-tilde_t (its 256x256 models); `learned`, whose logarithm is the second half of the network's
            channels ("learned diagonal" of Table 2); `learned_range`, whose logarithm lies where that half says, from
            log beta-tilde_t at -1 to log beta_t at 1 and beyond (Nichol and Dhariwal 2021, Eq. 15).
        timesteps: [T] int or float, what the network is given for each t, where that is not t itself: in a respaced
            process the timesteps of the whole one (`schedule.respaced_timesteps`; the betas are `respaced_betas`).

    Raises:
        ValueError: for betas out of range, other than T timesteps, an unknown choice, a combination that makes no
            sense, or coefficients that float32 cannot hold.
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0.0) & (betas <= 1.0)):
        raise ValueError(f"betas must be at least 2 numbers in (0, 1], in one dimension; got shape {betas.shape}.")
    if timesteps is not None:
        if np.shape(timesteps) != betas.shape:
            raise ValueError(f"{betas.shape} betas need as many timesteps, not {np.shape(timesteps)}.")
        is_int = np.issubdtype(np.asarray(timesteps).dtype, np.integer)
        timesteps = jnp.asarray(timesteps, jnp.int32 if is_int else jnp.float32)
    alphas_cumprod = np.cumprod(1.0 - betas)
    _check_choices(mean_type, var_type, ends_in_pure_noise=alphas_cumprod[-1] == 0.0)
    alphas_cumprod_prev = np.append(1.0, alphas_cumprod[:-1])
    one_minus_alphas_cumprod = 1.0 - alphas_cumprod
    with np.errstate(all="ignore"):  # what is not finite is refused below, if it is used
        posterior_variance = betas * (1.0 - alphas_cumprod_prev) / one_minus_alphas_cumprod
        model_variance = posterior_variance if var_type == "fixedsmall" else betas
        first = betas[0] if var_type == "learned_range" else posterior_variance[1]
        recip_alphas_cumprod = 1.0 / alphas_cumprod
        tables = dict(
            alphas_cumprod=alphas_cumprod,
            one_minus_alphas_cumprod=one_minus_alphas_cumprod,
            sqrt_alphas_cumprod=np.sqrt(alphas_cumprod),
            sqrt_one_minus_alphas_cumprod=np.sqrt(one_minus_alphas_cumprod),
            log_one_minus_alphas_cumprod=np.log(one_minus_alphas_cumprod),
            sqrt_recip_alphas_cumprod=np.sqrt(recip_alphas_cumprod),
            sqrt_recipm1_alphas_cumprod=np.sqrt(recip_alphas_cumprod - 1.0),
            posterior_mean_coef1=betas * np.sqrt(alphas_cumprod_prev) / one_minus_alphas_cumprod,
            posterior_mean_coef2=(1.0 - alphas_cumprod_prev) * np.sqrt(1.0 - betas) / one_minus_alphas_cumprod,
            posterior_variance=posterior_variance,
            posterior_log_variance=np.log(np.append(posterior_variance[1], posterior_variance[1:])),
            model_variance=model_variance,
            model_log_variance=np.log(np.append(first, model_variance[1:])),
        )
        _check_tables(tables, mean_type)
        as_float32 = {name: jnp.asarray(table, jnp.float32) for name, table in tables.items()}
    return Process(**as_float32, timesteps=timesteps, mean_type=mean_type, var_type=var_type)


def _check_tables(tables: dict[str, np.ndarray], mean_type: str) -> None:
    """Refuses coefficients that are used and that, or whose products with an x_t, are not finite in float32."""
    if mean_type != "eps":  # which alone divides by alpha-bar: jsd ends in 0
        tables = {name: table for name, table in tables.items() if "_recip" not in name}
    if mean_type == "xprev":
        tables["1 / posterior_mean_coef1"] = 1.0 / tables["posterior_mean_coef1"]
    for name, table in tables.items():
        finite = np.isfinite((_LARGEST_X_T * table).astype(np.float32))
        if not finite.all():
            t = np.argmin(finite)
            raise ValueError(
                f"{name} is too large for float32 at t = {t} of {len(table)}, where alpha-bar is "
                f"{tables['alphas_cumprod'][t]:.1e}: take fewer timesteps or other betas, or predict xstart or v."
            )


def _check_choices(mean_type: str, var_type: str, *, ends_in_pure_noise: bool) -> None:
    check_choice("mean_type", mean_type, MEAN_TYPES)
    check_choice("var_type", var_type, VAR_TYPES)
    if mean_type == "eps" and ends_in_pure_noise:
        raise ValueError(
            "mean_type='eps' cannot be used with a schedule that ends in beta = 1 (jsd): x_T is pure noise there, from "
            "which no x_0 follows. Predict xstart, xprev or v, or use another schedule."
        )


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is none of the choices.

    Raises:
        ValueError: naming the field, the value and the choices.
    """
    if value not in choices:
        raise ValueError(f"Unknown {field} {value!r}; choose one of {', '.join(choices)}.")


def at(table: jax.Array, t: jax.Array) -> jax.Array:
    """Looks up a table [T] at t [B] int32 in [0, T), as [B, 1, 1, 1] to be multiplied with images."""
    return table[t][:, None, None, None]


def log_alphas_cumprod(process: Process) -> np.ndarray:
    """Computes log alpha-bar_t, float64 [T], as exact as the float32 tables are at both ends; it may end in -inf.

    Raises:
        jax.errors.TracerArrayConversionError: if the process is traced.
    """
    signal, noise = (
        np.asarray(table, np.float64) for table in (process.alphas_cumprod, process.one_minus_alphas_cumprod)
    )
    with np.errstate(divide="ignore"):
        return np.where(signal < 0.5, np.log(signal), np.log1p(-np.minimum(noise, 0.5)))


def signal_and_noise(process: Process, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Looks up the two factors of Eq. 4, sqrt(alpha-bar_t) of x_0 and sqrt(1 - alpha-bar_t) of eps, [B, 1, 1, 1] each.

    Between whole timesteps log alpha-bar is interpolated linearly, as DPM-Solver does (Lu et al. 2022, Appendix D.4).

    Args:
        process: coefficients of T timesteps.
        t: [B], int32 in [0, T) or floating in [0, T - 1].
    """
    if jnp.issubdtype(t.dtype, jnp.integer):
        return at(process.sqrt_alphas_cumprod, t), at(process.sqrt_one_minus_alphas_cumprod, t)
    below = jnp.clip(jnp.floor(t).astype(jnp.int32), 0, process.num_timesteps - 2)
    signal, noise = process.alphas_cumprod, process.one_minus_alphas_cumprod
    log_signal = jnp.where(signal < 0.5, jnp.log(signal), jnp.log1p(-jnp.minimum(noise, 0.5)))
    fraction = (t - below)[:, None, None, None]
    before, after = at(log_signal, below), at(log_signal, below + 1)
    log_at_t = jnp.where(fraction > 0.0, (1.0 - fraction) * before + fraction * after, before)  # after may be -inf
    return jnp.exp(0.5 * log_at_t), jnp.sqrt(-jnp.expm1(log_at_t))


def q_mean_variance(process: Process, *, x_0: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Describes q(x_t | x_0), Eq. 4, by its mean [B, H, W, C], its variance and the logarithm of that [B, 1, 1, 1]."""
    check_shape("x_0", x_0, "BHWC")
    check_timesteps(t, batch_size=len(x_0), num_timesteps=process.num_timesteps)
    mean = at(process.sqrt_alphas_cumprod, t) * x_0
    return mean, at(process.one_minus_alphas_cumprod, t), at(process.log_one_minus_alphas_cumprod, t)


def q_sample(process: Process, *, x_0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Draws x_t from q(x_t | x_0), Eq. 4, with the noise given by the caller.

    Args:
        process: coefficients of T timesteps.
        x_0: [B, H, W, C] clean images in [-1, 1].
        t: [B] int32 timesteps in [0, T), or floating between them (`signal_and_noise`); the caller ensures the range,
            as JAX would clamp.
        eps: [B, H, W, C] standard normal noise, also the network's target (Eq. 14).

    Returns:
        [B, H, W, C] noised images, in units of the data; not confined to [-1, 1].

    Raises:
        ArgumentError: while tracing, if `eps` is not shaped like `x_0`, or `t` is not [B]; of a `t` whose values are
            known, if one is out of range.
    """
    check_alike(x_0=x_0, eps=eps)
    check_shape("x_0", x_0, "BHWC")
    check_timesteps(t, batch_size=len(x_0), num_timesteps=process.num_timesteps, whole=False)
    signal, noise = signal_and_noise(process, jnp.asarray(t))
    return signal * x_0 + noise * eps


def q_posterior(
    process: Process, *, x_0: jax.Array, x_t: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Describes q(x_{t-1} | x_t, x_0), Eqs. 6 and 7, in the form of `q_mean_variance`.

    At t = 0 the posterior is x_0 itself: variance 0, with the log-variance of t = 1 in place of minus infinity.
    """
    check_alike(x_0=x_0, x_t=x_t)
    check_shape("x_0", x_0, "BHWC")
    check_timesteps(t, batch_size=len(x_0), num_timesteps=process.num_timesteps)
    mean = at(process.posterior_mean_coef1, t) * x_0 + at(process.posterior_mean_coef2, t) * x_t
    return mean, at(process.posterior_variance, t), at(process.posterior_log_variance, t)
