"""Ctrl-C and closed pipes where no work is in hand that could be saved, and where some is."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from e2e.conftest import TINY, finished


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """In a shell's background job it is ignored, also by what the job starts."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(process):
    """What it printed before Ctrl-C ended it, with nothing to say."""
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT, output
    assert "Traceback" not in output
    assert "Fatal" not in output
    return output


def test_ctrl_c_while_the_libraries_are_imported_leaves_at_once(start_afresh, tmp_path):
    process = start_afresh("sample.py", f"--workdir={tmp_path}")
    while "libjax_common" not in Path(f"/proc/{process.pid}/maps").read_text():  # JAX is being imported
        assert process.poll() is None
        time.sleep(0.005)
    assert interrupted(process) == ""


@pytest.mark.slow
def test_ctrl_c_while_a_dry_run_compiles_leaves_at_once(start_afresh, tmp_path):
    process = start_afresh("train.py", "--config=cifar10", f"--workdir={tmp_path}", "--dry_run")
    while not process.stdout.readline().startswith("Data: "):
        assert process.poll() is None
    time.sleep(3.0)  # it compiles for half a minute
    interrupted(process)


@pytest.mark.slow
def test_a_reader_that_leaves_ends_no_training(start_afresh, tmp_path):
    process = start_afresh("train.py", *TINY, f"--workdir={tmp_path}")
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=120) == 0
    assert (tmp_path / "checkpoints" / "12").is_dir()


@pytest.mark.slow
def test_help_whose_reader_leaves_says_nothing_more(start_afresh):
    reader, writer = os.pipe()
    os.close(reader)
    process = start_afresh("train.py", "--help")
    assert "--workdir" in finished(process)
    with os.fdopen(writer, "w") as closed:
        left = subprocess.run(process.args, stdout=closed, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (left.returncode, left.stderr) == (0, "")
