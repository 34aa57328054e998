import contextlib
import io
import json
import resource
import struct

import jax
import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from ddpm_jax.runs import workdir
from ddpm_jax.runs.metric_log import MetricLog
from ddpm_jax.runs.writers import JsonLines, TensorBoard
from ddpm_jax.training import Metrics, NonFiniteError


def make(folder, start_step=0, log_every=4, num_steps=8, more=()):
    return MetricLog(
        [JsonLines(folder, start_step), TensorBoard(folder, start_step), *more],
        num_steps=num_steps,
        batch_size=3,
        log_every=log_every,
        learning_rate=lambda step: step / 10,
    )


def stacked(*losses):
    k = len(losses)
    losses = np.array(losses, np.float32)
    quarters = np.stack([2 * losses, losses, np.zeros(k), np.zeros(k)], axis=1)
    counts = np.tile([2.0, 1.0, 0.0, 0.0], (k, 1))
    return Metrics(
        loss=losses, quarter_loss=quarters, quarter_count=counts, grad_norm=losses * 3, param_norm=losses + 5
    )


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_row_holds_the_means_over_its_steps(tmp_path, capsys):
    log = make(tmp_path)
    log.add(2, stacked(1.0, 2.0))
    log.add(4, stacked(3.0, 4.0))
    log.add(6, stacked(5.0, 6.0))
    log.add(8, stacked(7.0, 8.0))
    log.flush()
    log.close()
    first, second = rows(tmp_path)
    assert (first["step"], first["loss"], first["grad_norm"], first["param_norm"]) == (4, 2.5, 7.5, 9.0)
    assert (first["loss_quarter_1"], first["loss_quarter_2"]) == (2.5, 2.5)
    assert first["loss_quarter_3"] is None
    assert first["lr"] == pytest.approx(0.3)
    assert (second["step"], second["loss"], second["param_norm"]) == (8, 6.5, 13.0)
    assert second["images_per_s"] == pytest.approx(3 * second["steps_per_s"])
    said = capsys.readouterr().out
    assert "step 8/8  loss 6.5000" in said
    assert "0:00:00 left" in said


@pytest.mark.parametrize("dispatches", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("log_every", [2, 4])
@pytest.mark.parametrize("at_once", [(), (3, 4, 6)])  # where a checkpoint is saved
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_rate_is_that_of_the_devices_or_none(tmp_path, monkeypatch, dispatches, log_every, at_once, asynchronous):
    """By a clock of our own: two steps take four seconds, a compilation before the first 90, another pause 50."""
    now, done = 0.0, {}

    def device_get(metrics):
        nonlocal now
        now = max(now, done[id(metrics)])
        return metrics

    monkeypatch.setattr("time.perf_counter", lambda: now)
    monkeypatch.setattr(jax, "device_get", device_get)
    log, busy_until, metrics = make(tmp_path, log_every=log_every, num_steps=2 * dispatches), 0.0, []
    for k in range(1, dispatches + 1):
        now += 90.0 if k == 1 else 0.25
        metrics.append(stacked(1.0, 2.0))
        busy_until = done[id(metrics[-1])] = max(now, busy_until) + 4.0
        now = now if asynchronous else busy_until
        log.add(2 * k, metrics[-1])
        if k in at_once or k == dispatches:
            log.flush()
        if k in at_once:
            with log.paused():
                now += 50.0
    log.close()
    rates = [row["steps_per_s"] for row in rows(tmp_path)]
    assert len(rates) == (2 * dispatches + log_every - 1) // log_every
    known = [rate for rate in rates if rate is not None]
    assert known == pytest.approx([0.5] * len(known), rel=0.15)
    assert len(known) >= (dispatches - len(at_once) - 1) * 2 // log_every - 1
    assert known or dispatches < 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_named(tmp_path, bad):
    with contextlib.closing(make(tmp_path)) as log:
        log.add(3, stacked(1.0, bad, 1.0))
        with pytest.raises(NonFiniteError, match="The loss of step 2 is (nan|inf)"):
            log.flush()


def test_rows_of_steps_that_will_be_redone_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": 8}\n{"ste')
    make(tmp_path, start_step=4).close()
    assert rows(tmp_path) == [{"step": 4}]


DAMAGED = [
    b'{"step": 2, "loss": 0.5}', b"\0" * 30, b"\xff\xfe", b"[" * 60_000, b"3", b'{"loss": 1.0}', b'{"step": null}',
    b'{"step": 4, "loss": 1.5}',
]  # fmt: skip


@pytest.mark.parametrize("tail", [b'{"ste', b"", b'{"ste\0\0\0'])
def test_what_cannot_be_read_is_set_aside_and_said_and_the_rest_stays(tmp_path, caplog, tail):
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*DAMAGED, tail]))
    assert workdir.recent_loss(tmp_path, 4) == 1.0
    make(tmp_path, start_step=4).close()
    assert rows(tmp_path) == [{"step": 2, "loss": 0.5}, {"step": 4, "loss": 1.5}]
    set_aside = [*DAMAGED[1:-1], tail] if b"\0" in tail else DAMAGED[1:-1]
    assert (tmp_path / "metrics.jsonl.unreadable").read_bytes() == b"".join(line + b"\n" for line in set_aside)
    said = f"{tmp_path}/metrics.jsonl is damaged. What cannot be read of it, {len(set_aside)} lines, is now in "
    assert [record.getMessage() for record in caplog.records] == [f"{said}metrics.jsonl.unreadable."]
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b"again\n")
    make(tmp_path, start_step=4).close()
    assert (tmp_path / "metrics.jsonl.unreadable-2").read_bytes() == b"again\n"


def events(folder):
    """Every event of TensorBoard's files: records of a length, its checksum, the event, and its checksum."""
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def test_tensorboard_gets_every_value_and_forgets_the_steps_that_are_redone(tmp_path):
    log = make(tmp_path, start_step=4)
    log.add(8, stacked(1.0, 2.0, 3.0, 4.0))
    log.flush()
    log.close()
    _version, start, *scalars = events(tmp_path)
    assert (start.step, start.session_log.status) == (5, SessionLog.START)
    (row,) = rows(tmp_path)
    found = {event.summary.value[0].tag: event.summary.value[0].simple_value for event in scalars}
    expected = {name: value for name, value in row.items() if value is not None and name != "step"}
    assert found == pytest.approx(expected, rel=1e-6)
    assert {event.step for event in scalars} == {8}


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tensorboard_gets_pictures(tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, channels), np.uint8)
    with contextlib.closing(make(tmp_path)) as log:
        log.picture(4, "samples", pixels)
    *_, event = events(tmp_path)
    (value,) = event.summary.value
    assert (event.step, value.tag) == (4, "samples")
    assert (value.image.height, value.image.width) == (6, 5)
    shown = np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string))).reshape(6, 5, -1)
    np.testing.assert_array_equal(shown[..., :channels], pixels)
    assert rows(tmp_path) == []


class Recorded:
    """A writer of one's own; its disk is full when it is given pictures."""

    def __init__(self):
        self.calls = []

    def scalars(self, step, values):
        self.calls.append((step, values["loss"]))

    def picture(self, step, name, pixels):
        raise OSError("no connection")

    def close(self):
        self.calls.append("closed")


def test_a_writer_of_ones_own_gets_what_the_others_get_and_its_failure_stops_nothing(tmp_path, capsys):
    recorded = Recorded()
    with contextlib.closing(make(tmp_path, log_every=2, more=[recorded])) as log:
        log.add(2, stacked(1.0, 2.0))
        log.picture(2, "samples", np.zeros((2, 2, 1), np.uint8))
        log.add(4, stacked(3.0, 4.0))
    assert recorded.calls == [(2, 1.5), "closed"]
    assert rows(tmp_path)[0]["loss"] == 1.5
    assert "The metrics of step 2 are not written yet: no connection." in capsys.readouterr().err


def test_what_a_full_disk_does_not_take_is_written_later(tmp_path, capsys):
    log = make(tmp_path, log_every=2)
    log.add(2, stacked(1.0, 2.0))
    log.flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "metrics.jsonl").stat().st_size + 9, hard))
    try:
        log.add(4, stacked(3.0, 4.0))
        log.add(6, stacked(5.0, 6.0))
        log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "The metrics of step 6 are not written yet: File too large." in capsys.readouterr().err
    log.add(8, stacked(7.0, 8.0))
    log.flush()
    log.close()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [(2, 1.5), (4, 3.5), (6, 5.5), (8, 7.5)]
