import os
import subprocess
import sys

import pytest

from e2e.conftest import ROOT, TINY
from e2e.test_train import assert_same_model


@pytest.mark.slow
def test_the_second_start_reads_what_the_first_compiled_and_computes_the_same_bits(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | {
        "JAX_PLATFORMS": "cpu",
        "DDPM_JAX_CACHE": str(tmp_path / "cache"),
    }

    def train(name, **changes):
        command = [sys.executable, "train.py", *TINY, f"--workdir={tmp_path / name}"]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300)
        output = subprocess.run(command, cwd=ROOT, env=environment | changes, check=True, **pipes).stdout
        lines = [line for line in output.splitlines() if not line.startswith(("step ", "Compiling "))]
        assert len(lines) == 3, output  # the data, the start and the end: nothing that a library has to say
        return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*-cache")}

    first = train("first")
    assert any(name.startswith("jit_") for name in first)
    assert train("second") == first
    assert train("third", DDPM_JAX_CACHE="/dev/null/no folder") == first
    assert_same_model(tmp_path / "first", tmp_path / "second")
    assert_same_model(tmp_path / "first", tmp_path / "third")
