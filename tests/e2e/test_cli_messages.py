"""What the commands answer to wrong flags: all of a command's in one process, as starting one takes seconds."""

import os
import subprocess
import sys

import pytest

from e2e.conftest import ROOT

PROGRAM = """
import importlib, sys
from absl import flags
from ddpm_jax.cli import app
command = importlib.import_module(sys.argv[1])
command._define_flags()
for arguments in list(sys.argv[2:]):
    sys.argv[:] = ["ddpm", *arguments.split()]
    flags.FLAGS.unparse_flags()
    try:
        app.parse(sys.argv, doc="")
        print("accepted")
    except SystemExit as error:
        print(error)
"""
TRAIN = {
    "--config=digits --workdir=x --lr=1e-4": "Unknown command line flag 'lr'. Did you mean --config.optim.lr=...?",
    "--config digits --wrokdir=x": "Unknown command line flag 'wrokdir'. Did you mean --workdir?",
    "--workdir=x": "--config=... must be given: celebahq256, cifar10,",
    "--config=digits": "--workdir=... must be given.",
    "--config=digits --workdir=x --config.optim.lr=fast": "could not convert string to float: 'fast'",
    "--config=digits --workdir=x more": "Unknown argument 'more'",
    "--config digits --workdir x": "accepted",
}
SAMPLE = {
    "--workdir=x --num_steps=50": "Unknown command line flag 'num_steps'. There are --batch_size,",
    "--workdir=x --num_sample=50": "Did you mean --num_samples?",
    "": "--workdir=... must be given.",
}


@pytest.mark.parametrize(("command", "answers"), [("train", TRAIN), ("sample", SAMPLE)], ids=["train", "sample"])
def test_a_wrong_flag_is_named_with_the_way_out(command, answers):
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, f"ddpm_jax.cli.{command}", *answers],
        env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    assert len(lines) == len(answers)
    for line, answer in zip(lines, answers.values(), strict=True):
        assert answer in line
        assert "\n" not in line


def test_a_device_that_is_not_here_is_named(tmp_path):
    """No accelerator is opened: JAX has no platform of this name."""
    found = subprocess.run(
        [sys.executable, "-m", "ddpm_jax.paper", "x"], env=os.environ | {"JAX_PLATFORMS": "none_such"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert found.returncode == 1
    (line,) = found.stderr.splitlines()
    assert "JAX_PLATFORMS=none_such asks for one that is not here. Set JAX_PLATFORMS=cpu" in line


def test_a_warning_is_printed_once():
    """Orbax's import leaves a handler that prints it, too."""
    program = (
        "import logging, absl.logging\n"
        "from ddpm_jax.cli import app\n"
        "logging.basicConfig()\n"
        "app.run(lambda: None, lambda values: absl.logging.warning('beware') or 0, doc='')"
    )
    cpu = os.environ | {"JAX_PLATFORMS": "cpu"}
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=cpu, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr.count("beware")) == (0, 1), ran.stderr
