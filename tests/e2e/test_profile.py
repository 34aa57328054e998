import json

import pytest

from e2e.conftest import TINY
from e2e.test_train import assert_same_model

pytestmark = pytest.mark.slow


def test_a_trace_of_the_steps_that_were_asked_for(run, trained, tmp_path):
    folder = tmp_path / "run"
    output = run("train.py", *TINY, f"--workdir={folder}", "--config.train.profile=3:4")
    assert f"Trace of the steps up to 4: {folder}/profile" in output
    (trace,) = (folder / "profile").rglob("*.xplane.pb")
    assert b"PjitFunction" in trace.read_bytes()  # the call of a compiled function
    assert_same_model(folder, trained)
    assert json.loads((folder / "config.json").read_text())["train"]["profile"] == "3:4"
    assert "Finished at step 12" in run("train.py", *TINY, f"--workdir={folder}")  # without a trace: the same run


def test_steps_that_make_no_sense_are_refused(run, tmp_path):
    output = run("train.py", *TINY, f"--workdir={tmp_path / 'run'}", "--config.train.profile=4:3", code=1)
    assert "train.profile='4:3' must be FIRST:LAST" in output
    assert not (tmp_path / "run").exists()
