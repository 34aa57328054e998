import jax
import jax.numpy as jnp
import pytest

from configs import own_images
from ddpm_jax.runs import dry_run, memory


@pytest.mark.parametrize("num_steps", [1, 7])
def test_the_cost_is_that_of_one_step_of_a_dispatch(num_steps):
    def steps(x, ys):
        return jax.lax.scan(lambda x, y: (x @ y, jnp.zeros(())), x, ys)

    x, ys = jax.ShapeDtypeStruct((64, 64), jnp.float32), jax.ShapeDtypeStruct((num_steps, 64, 64), jnp.float32)
    needed = dry_run.cost(jax.jit(steps, donate_argnums=0).lower(x, ys))
    matrix = 4 * 64 * 64
    assert needed.arguments == matrix * (1 + num_steps)
    assert matrix <= needed.outputs <= matrix + 4 * num_steps + 64  # and the table of the two
    assert needed.aliased == matrix
    assert 2 * 64**3 <= needed.flops < 2 * 64**3 * 1.01
    without_temporaries = matrix * (1 + num_steps) + needed.outputs - matrix
    assert needed.memory == without_temporaries + needed.temporaries + needed.program


def test_what_does_not_fit_is_said(monkeypatch):
    needed = dry_run.Cost(arguments=2**30, outputs=2**30, aliased=2**30, temporaries=2**31, program=0, flops=1e12)
    monkeypatch.setattr(dry_run.memory, "available_bytes", lambda: None)
    assert "Memory: 3.00 GiB on each device" in dry_run._describe(needed, num_devices=4, batch_size=8)
    assert "4e+12 floating-point operations a step, 5e+11 an image" in dry_run._describe(
        needed, num_devices=4, batch_size=8
    )

    monkeypatch.undo()

    class Device:
        def __init__(self, limit):
            self._limit = limit

        def memory_stats(self):
            return {"bytes_limit": self._limit}

    for limit, fits in ((2**31, False), (2**32, True)):
        monkeypatch.setattr(jax, "local_devices", lambda limit=limit: [Device(limit)])
        said = dry_run._describe(needed, num_devices=1, batch_size=1)
        assert f"of {limit / 2**30:.2f} GiB that JAX may use" in said
        assert ("THIS DOES NOT FIT" in said) is not fits


def test_the_mildest_change_that_fits_is_found_for_each_setting():
    config = own_images.get_config()
    asked = []

    def memory_of(settings):  # a state, and activations
        asked.append(settings)
        width, images = settings.model.ch, settings.train.batch_size // settings.train.microbatches
        return width**2 + images * width

    needed = memory_of(config)
    assert needed == 64**2 + 16 * 64
    found = dict(memory.alternatives(config, memory_of, available=4500, needed=needed))
    assert found == {
        "--config.train.batch_size=4": 64**2 + 4 * 64,
        "--config.train.microbatches=4": 64**2 + 4 * 64,
        "--config.model.ch=32": 32**2 + 16 * 32,
    }
    assert list(memory.alternatives(config, memory_of, available=100, needed=needed)) == []


def test_a_cpu_has_the_memory_of_the_machine():
    assert 2**28 < memory.available_bytes() * jax.local_device_count() < 2**50
