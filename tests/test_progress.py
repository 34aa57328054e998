import contextlib
import json

import numpy as np
import pytest

from ddpm_jax.progress import Progress
from ddpm_jax.training import Metrics, NonFiniteError


def make(folder, start_step=0, log_every=4):
    return Progress(
        folder,
        start_step=start_step,
        num_steps=8,
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
    progress = make(tmp_path)
    progress.add(2, stacked(1.0, 2.0))
    progress.add(4, stacked(3.0, 4.0))
    progress.add(6, stacked(5.0, 6.0))
    progress.add(8, stacked(7.0, 8.0))
    progress.flush()
    progress.close()
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


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_named(tmp_path, bad):
    with contextlib.closing(make(tmp_path)) as progress:
        progress.add(3, stacked(1.0, bad, 1.0))
        with pytest.raises(NonFiniteError, match="The loss of step 2 is (nan|inf)"):
            progress.flush()


def test_rows_of_steps_that_will_be_redone_are_dropped(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 4}\n{"step": 8}\n{"ste')
    make(tmp_path, start_step=4).close()
    assert rows(tmp_path) == [{"step": 4}]
