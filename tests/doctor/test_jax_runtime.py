"""A JAX that fails or hangs; e2e/test_doctor.py starts the real one."""

import sys
import threading
import types

import jax
import pytest

from ddpm_jax import doctor


@pytest.fixture
def stub(monkeypatch):
    """`stub(devices=function)` puts another module in the place of JAX."""

    config = jax.config

    def stub(**functions):
        for name in ("jax", "jax.experimental", "jax.experimental.multihost_utils"):
            module = types.SimpleNamespace(multihost_utils=None, config=config, **functions)
            monkeypatch.setitem(sys.modules, name, module)

    return stub


def test_a_stage_that_fails_is_named(stub):
    def devices():
        raise RuntimeError("no chip answers\nand more")

    stub(devices=devices)
    (problem,) = doctor.check_hosts()
    assert problem.endswith("starting the devices failed: no chip answers.")


def test_a_stage_that_hangs_is_named(stub):
    released = threading.Event()
    stub(devices=released.wait)
    try:
        (problem,) = doctor.check_hosts(timeout_s=1.0)
    finally:
        released.set()
    assert problem.endswith("starting the devices takes more than 1 s.")
