import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "sampling" / "draws.py"


@pytest.mark.slow
def test_no_environment_variable_changes_what_is_drawn():
    def fingerprint(**variables):
        command = [sys.executable, PROGRAM]
        return subprocess.run(command, env=os.environ | variables, check=True, capture_output=True, timeout=120).stdout

    usual = fingerprint()
    assert len(usual.strip()) == 64
    assert fingerprint(JAX_DEFAULT_PRNG_IMPL="rbg") == usual
    assert fingerprint(JAX_ENABLE_X64="1") == usual
    assert fingerprint(JAX_THREEFRY_PARTITIONABLE="0") == usual
