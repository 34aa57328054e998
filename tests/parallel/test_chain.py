"""A chain over the devices in several dispatches: the same bits, news on the way, and a stop between two of them."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpm_jax import diffusion, parallel, sampling, schedule
from ddpm_jax.parallel import devices
from ddpm_jax.runtime.signals import Stopped, StopRequest

PROCESS = diffusion.make_process(schedule.beta_schedule("linear", 120))
SHAPE = (4, 3, 2)


def denoise_fn(scale, x_t, t):
    mixed = jnp.einsum("bhwc,cd->bhwd", x_t, scale * jnp.array([[0.6, -0.2], [0.3, 0.5]]))
    return jnp.tanh(mixed) + 0.1 * jnp.sin(t)[:, None, None, None]


def chain_of(scale, process=PROCESS):
    chain = sampling.sample_chain(process, lambda x_t, t: denoise_fn(scale, x_t, t), shape=SHAPE)
    return chain._replace(read=lambda carried: chain.read(carried)[0])


@pytest.fixture
def keys():
    return sampling.image_keys(0, np.arange(5))


@pytest.fixture
def mapped():
    return parallel.map_chain(chain_of, name="the sampler")


@pytest.mark.parametrize("seconds", [1e-6, 60.0])  # a step a dispatch, at last; or all that are left
def test_a_chain_in_pieces_has_the_bits_of_the_one_scan(mapped, keys, monkeypatch, seconds):
    monkeypatch.setattr(devices, "_DISPATCH_S", seconds)
    scale, shares = jnp.float32(1.5), []
    whole = parallel.map_batches(
        lambda scale, keys: sampling.sample_loop(PROCESS, lambda x, t: denoise_fn(scale, x, t), keys=keys, shape=SHAPE)
    )(scale, keys)
    np.testing.assert_array_equal(mapped(scale, keys, report=shares.append), whole)
    assert shares == sorted(set(shares))
    assert shares[-1] == 1.0
    assert len(shares) > 60 if seconds < 1 else len(shares) == 4
    assert np.std(whole) > 0.3
    np.testing.assert_array_equal(mapped(scale, keys), whole)  # at the pace that was found


def test_a_stop_is_seen_before_the_chain_is_over(mapped, keys):
    reported = []

    def report(share):
        reported.append(share)
        if len(reported) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with StopRequest(), pytest.raises(Stopped) as stopped:
        mapped(jnp.float32(1.0), keys, report=report)
    assert stopped.value.exit_code == 143
    assert reported == [10 / 120, 20 / 120]


def test_a_short_chain_is_not_split(keys):
    process = diffusion.make_process(schedule.beta_schedule("linear", 50))
    reported = []
    mapped = parallel.map_chain(lambda scale: chain_of(scale, process), name="the sampler")
    mapped(jnp.float32(1.0), keys, report=reported.append)
    assert reported == [1.0]


def test_compiling_is_announced_once_for_each_shape(mapped, keys, capfd):
    level = jax.config.jax_logging_level
    for batch in (keys, keys, keys[:4]):
        mapped(jnp.float32(1.0), batch)
    said = [line for line in capfd.readouterr().err.splitlines() if "Compiling" in line]
    assert len(said) == 2
    assert all(line.startswith("Compiling the sampler ... ") and line.endswith(" s") for line in said)
    assert jax.config.jax_logging_level == level
