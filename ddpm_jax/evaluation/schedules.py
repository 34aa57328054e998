"""The best K timesteps of a trained model, and the optimal variances of its steps, as tables on disk.

Two tables: the moments that were measured on images, T numbers of each kind, and, made of those, the schedules. Every
process calls these functions alike.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import diffusion, images, likelihood, parallel, sampling
from ddpm_jax.evaluation import results
from ddpm_jax.evaluation.selection import Selection, measured_table
from ddpm_jax.runs.experiment import Experiment
from ddpm_jax.runtime import foreign_files
from ddpm_jax.samplers import analytic, search, spaced


class Schedule(NamedTuple):
    """K timesteps of a process of T, and the variances of ancestral steps at them."""

    timesteps: tuple[int, ...]
    variances: tuple[float, ...]


def moments(
    process: diffusion.Process, denoise_fn: diffusion.DenoiseFn, *, x_0: jax.Array, keys: jax.Array
) -> jax.Array:
    """Measures what schedules are made of, at every timestep: one scan over T, with the noise of `likelihood.bpd_loop`.

    Args:
        process: of T timesteps.
        denoise_fn: the network.
        x_0: [B, H, W, C] in [-1, 1].
        keys: [B].

    Returns:
        [B, 2 + 2 T]: the decoder's term L_0 and the prior's L_T in bits/dim; the mean square of the predicted eps
        at each t, whose expectation is Gamma_t; the mean squared error of the predicted x_0, clipped, at each t.
    """

    def step(first: jax.Array, t: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        batch_t = jnp.full(keys.shape, t)  # [B]
        x_t = diffusion.q_sample(process, x_0=x_0, t=batch_t, eps=sampling.noise(keys, t, x_0.shape[1:]))
        output = denoise_fn(x_t, process.network_t(batch_t)).astype(jnp.float32)
        eps = diffusion.p_mean_variance(process, model_output=output, x_t=x_t, t=batch_t, clip=False).eps
        term, x_0_pred = diffusion.vb_terms_bpd(process, model_output=output, x_0=x_0, x_t=x_t, t=batch_t, clip=True)
        return jnp.where(t == 0, term, first), (_mean_square(eps), _mean_square(x_0_pred - x_0))

    decoder, (gamma, mse) = jax.lax.scan(step, jnp.zeros(keys.shape), jnp.arange(process.num_timesteps))  # [T, B]
    prior = diffusion.prior_bpd(process, x_0=x_0)
    return jnp.concatenate([decoder[:, None], prior[:, None], gamma.T, mse.T], axis=1)


def _mean_square(x: jax.Array) -> jax.Array:
    return jnp.mean(x**2, axis=(1, 2, 3))  # [B]


def measure_schedules(
    selection: Selection, folder: Path, *, counts: Sequence[int], batch_size: int, last_levels: float = 1.0
) -> Path:
    """Measures the moments, unless they are there, and writes the schedules of K timesteps for each K.

    Args:
        selection: the model and its images.
        folder: for the tables.
        counts: the K, each from 2 to T.
        batch_size: images at a time.
        last_levels: see `analytic.optimal_variances`.

    Returns:
        The path of the table of schedules, which `read_schedule` reads. It holds for each K the timesteps, the
        variances, the bound in bits/dim of these timesteps with the best variances, and that of evenly spaced ones.

    Raises:
        ValueError: if a K is out of range, or the table of moments is one of another model.
    """
    process = selection.model.experiment.process
    search.check_counts(counts, process.num_timesteps)

    def summarize(rows: np.ndarray) -> dict[str, Any]:
        decoder, prior = rows[:, :2].astype(np.float64).mean(axis=0).tolist()
        mean, error = likelihood.mean_over_images(rows[:, 2:])
        (gamma, mse), (gamma_error, mse_error) = (np.split(values, 2) for values in (mean, error))
        by_t = dict(gamma=gamma, gamma_standard_error=gamma_error, x_0_mse=mse, x_0_mse_standard_error=mse_error)
        return {"decoder_bpd": decoder, "prior_bpd": prior,
                "by_t": {name: values.tolist() for name, values in by_t.items()}}  # fmt: skip

    table = measured_table(
        selection, selection.file(folder, "moments"), _map_moments(selection.model.experiment),
        width=2 + 2 * process.num_timesteps, summarize=summarize, batch_size=batch_size,
    )  # fmt: skip
    file = selection.file(folder, "schedules")
    made = schedules(process, table, counts=counts, last_levels=last_levels)
    weights = selection.model.fingerprint
    parallel.agree(lambda: results.write_table(file, selection.settings, weights=weights, schedules=made) and None)
    return file


def schedules(
    process: diffusion.Process, table: dict[str, Any], *, counts: Sequence[int], last_levels: float
) -> list[dict[str, Any]]:
    """Makes the schedules of a table of moments, for each K; see `measure_schedules`."""
    terms = search.bound_terms(process, np.array(table["by_t"]["x_0_mse"]))
    ends = table["decoder_bpd"] + table["prior_bpd"]
    x_0_variance = analytic.x_0_variances(process, np.array(table["by_t"]["gamma"]))

    def described(timesteps: np.ndarray) -> dict[str, Any]:
        variances = analytic.optimal_variances(process, timesteps, x_0_variance, last_levels=last_levels)
        even = spaced(process, len(timesteps), "linspace")
        return dict(
            steps=len(timesteps), timesteps=timesteps.tolist(), variances=variances.tolist(),
            bits_per_dim=ends + search.bound(terms, timesteps),
            bits_per_dim_of_linspace=ends + search.bound(terms, even),
        )  # fmt: skip

    found = search.best_timesteps(terms, counts)
    return [described(found[count]) for count in sorted(found)]


def _map_moments(experiment: Experiment) -> Callable:
    def measure(params: Any, pixels: jax.Array, keys: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        denoise_fn = experiment.denoise_fn(params, labels)
        return moments(experiment.process, denoise_fn, x_0=images.from_uint8(pixels), keys=keys)

    return parallel.map_batches(measure)


def read_schedule(file: Path, *, steps: int | None = None) -> Schedule:
    """Reads a schedule, on this process.

    Args:
        file: that `measure_schedules` wrote.
        steps: K; None: the only one that it holds.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is no such table, or has no schedule of K timesteps.
    """
    refusal = "is no table of schedules"
    table = foreign_files.read_json(file, refusal)
    with foreign_files.reading(file, refusal):
        found = {
            len(each["timesteps"]): Schedule(
                tuple(int(t) for t in each["timesteps"]), tuple(float(variance) for variance in each["variances"])
            )
            for each in table["schedules"]
        }
    steps = next(iter(found)) if steps is None and len(found) == 1 else steps
    if steps not in found:
        raise ValueError(f"{file} has schedules of {', '.join(map(str, found))} timesteps: choose one by --steps.")
    return found[steps]
