import importlib.util

import jax
import numpy as np
import pytest

from configs import digits
from ddpm_jax import parallel
from ddpm_jax.runs import sample_files, tpu_report, trainer


@pytest.mark.parametrize("target", ["", "v5e", "v5e:2x2x2", "v4:2x2", "v9:2x2", "v5e:0x4", "v5e:2x4\n", "2x4"])
def test_what_is_no_tpu_is_refused(target):
    with pytest.raises(ValueError, match="must be one of v4, v5e"):
        parallel.tpu_devices(target)


def test_a_missing_compiler_is_said(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'ddpm-jax\[tpu-compiler\]'"):
        parallel.tpu_devices("v5e:2x4")


@pytest.mark.usefixtures("tpu_compiler")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "chips", "hosts"),
    [("v5e:1x1", 1, 1), ("v5e:2x4", 8, 1), ("v5e:4x4", 16, 4), ("v4:2x2x1", 4, 1), ("v4:2x2x4", 16, 4),
     ("v5p:2x2x1", 4, 1), ("v6e:2x4", 8, 1)],
)  # fmt: skip
def test_the_devices_are_the_chips_of_the_slice(target, chips, hosts):
    devices = parallel.tpu_devices(target)
    assert len(devices) == chips
    assert len({device.process_index for device in devices}) == hosts


@pytest.mark.usefixtures("tpu_compiler")
@pytest.mark.slow
def test_a_slice_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="'v5e:3x5' is no TPU"):
        parallel.tpu_devices("v5e:3x5")


@pytest.mark.usefixtures("tpu_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e:2x4", "v4:2x2x4"])  # of one host, of four
def test_several_steps_of_digits_in_microbatches_compile(target):
    config = digits.get_config()
    config.train.update(steps_per_dispatch=10, microbatches=2)
    devices = parallel.tpu_devices(target)
    experiment = trainer.checked_experiment(config, num_devices=len(devices))
    lowered = trainer.lower(experiment, devices)
    needed = tpu_report.compiled(lowered)
    count = sum(leaf.size for leaf in jax.tree.leaves(experiment.abstract_params))
    assert needed.arguments >= 4 * 4 * count  # parameters, their average, Adam's two moments
    assert needed.arguments < needed.memory < parallel.chip(target).memory
    reduced = sum(needed.collectives["all-reduce"])
    assert reduced == pytest.approx(4 * count, rel=0.01)  # the gradients once, and metrics
    assert min(needed.least_seconds(parallel.chip(target))) > 0
    # Of each of the four, a part at least is read and written; much of what is accessed stays in the chip.
    assert 4 * 4 * count < needed.hbm_bytes < needed.bytes_accessed


@pytest.mark.usefixtures("tpu_compiler")
@pytest.mark.slow
@pytest.mark.parametrize("target", ["v5e:2x4", "v4:2x2x4"])
def test_the_sampler_of_digits_compiles(target):
    devices = parallel.tpu_devices(target)
    experiment = trainer.checked_experiment(digits.get_config(), num_devices=len(devices))
    needed = tpu_report.compiled(sample_files.lower_sample(experiment, devices))
    assert needed.memory < parallel.chip(target).memory
    assert sum(needed.collectives["all-reduce"]) <= 64  # whether to stop, alone


@pytest.mark.usefixtures("tpu_compiler")
@pytest.mark.slow
def test_what_does_not_fit_is_told_from_what_does():
    devices = parallel.tpu_devices("v5e:2x2")
    double = jax.pmap(lambda x: x[::-1].cumsum(), devices=devices)
    needed = tpu_report.compiled(double.lower(jax.ShapeDtypeStruct((4, 2**32), np.float32)))
    assert isinstance(needed, tpu_report.DoesNotFit)
    assert needed.arguments == 4 * 4 * 2**32
    assert isinstance(
        tpu_report.compiled(double.lower(jax.ShapeDtypeStruct((4, 2**10), np.float32))), tpu_report.Compiled
    )
