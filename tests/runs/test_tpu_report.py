import jax
import pytest

from ddpm_jax import parallel
from ddpm_jax.runs import tpu_report
from ddpm_jax.runs.experiment import make_experiment


def needs(**changes):
    values = dict(
        memory=2**30, arguments=2**29, program=2**20, flops=197e9, bytes_accessed=819e8, hbm_bytes=819 * 10**7,
        collectives={"all-reduce": [2**20, 2**20]}, seconds=60.0,
    )  # fmt: skip
    return tpu_report.Compiled(**values | changes)


def test_the_roofline_is_the_slower_of_work_and_memory():
    chip = parallel.chip("v5e:2x4")
    assert needs().least_seconds(chip) == pytest.approx((1e-3, 1e-2))
    assert needs(flops=197e11).least_seconds(chip) == pytest.approx((1e-1, 1e-2))


def said(monkeypatch, capsys, config, needed):
    monkeypatch.setattr(parallel, "tpu_devices", lambda target: jax.local_devices()[:1] * 4)
    monkeypatch.setattr(tpu_report, "compiled", lambda lowered: needed)
    programs = {name: lambda: None for name in (tpu_report.TRAIN_STEP, tpu_report.SAMPLER)}
    fits = tpu_report.report(make_experiment(config), "v5e:2x2", programs)
    return fits, capsys.readouterr().out


def test_what_fits_is_said_with_its_limits(monkeypatch, capsys, tiny_config):
    fits, output = said(monkeypatch, capsys, tiny_config, needs())
    assert fits
    assert "It fits: 1.00 GiB of 16.00 GiB on each chip, 512.0 MiB of arguments" in output
    assert "8.19e+10 bytes accessed, of which at most 8.19e+09 in the memory beside it" in output
    assert "2 all-reduce of 2.0 MiB in all" in output
    assert "100 steps/s, 800 images/s on the slice" in output
    assert "of one of 10 steps" in output
    assert "40 images/s on the slice, 4 at a time" in output


def test_of_microbatches_no_rate_is_said(monkeypatch, capsys, tiny_config):
    tiny_config.train.microbatches = 2
    _, output = said(monkeypatch, capsys, tiny_config, needs())
    assert "one of 2 microbatches, and the update" in output
    assert "steps/s" not in output


def test_few_images_on_a_chip_are_pointed_out(monkeypatch, capsys, tiny_config):
    tiny_config.train.update(batch_size=64, microbatches=2)  # 8 at a time on each of 4 chips
    tiny_config.sample.batch_size = 28
    _, output = said(monkeypatch, capsys, tiny_config, needs())
    assert output.count("on a chip at a time: compare with 8") == 1
    assert "7 images on a chip at a time" in output
    tiny_config.train.microbatches = 4
    _, output = said(monkeypatch, capsys, tiny_config, needs())
    assert "4 images on a chip at a time" in output


@pytest.mark.parametrize(
    "message",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 28.00G of 16.00G hbm.",
        "RESOURCE_EXHAUSTED: the total memory required (28.00G) exceeds available HBM (16.00G).",
    ],
)
def test_what_does_not_fit_is_said_with_a_way_out(monkeypatch, capsys, tiny_config, message):
    tiny_config.train.batch_size = 32  # 8 on each of 4 chips
    needed = tpu_report.DoesNotFit(message, arguments=2 * 2**30, seconds=1.0)
    assert needed.excess == pytest.approx(2.0)
    fits, output = said(monkeypatch, capsys, tiny_config, needed)
    assert not fits
    assert output.count("THIS DOES NOT FIT") == 2
    assert "By proportion, and so not for certain, train.microbatches=2 would be enough" in output
    assert "a smaller sample.batch_size" in output


def test_without_sizes_no_number_is_advised():
    assert tpu_report.DoesNotFit("RESOURCE_EXHAUSTED", arguments=0, seconds=1.0).excess is None
