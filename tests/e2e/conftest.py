"""The real command lines, in processes of their own, on digits in tiny settings."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from e2e.forked import Forks

ROOT = Path(__file__).parents[2]
TINY = (
    "--config=configs/digits.py",
    "--config.diffusion.num_timesteps=10",
    "--config.model.ch_mult=(1,)",
    "--config.model.num_res_blocks=1",
    "--config.model.attn_resolutions=()",
    "--config.train.num_steps=12",
    "--config.train.batch_size=8",
    "--config.train.log_every=2",
    "--config.train.checkpoint_every=4",
    "--config.train.steps_per_dispatch=1",
    "--config.sample.num_samples=7",
    "--config.sample.batch_size=4",
)


@pytest.fixture(scope="session")
def started():
    """All processes that tests have started."""
    return []


@pytest.fixture(autouse=True)
def nothing_left_running(started):
    """A test that fails leaves no process behind."""
    yield
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
    started.clear()


@pytest.fixture(scope="session")
def shared(tmp_path_factory, worker_id):
    """A folder that all workers share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def environment(shared):
    """`environment(devices)` -> the variables of a command; what was compiled is kept for the next."""
    cache = shared / "compiled"

    def environment(devices):
        return os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "DDPM_JAX_CACHE": str(cache / "ours"),
            "PYTHONUNBUFFERED": "1",
        }

    return environment


@pytest.fixture(scope="session")
def start_afresh(environment, started):
    """`start_afresh("train.py", *arguments, devices=1)` -> the running process, of an interpreter of its own.

    A name that does not end in .py is that of a module.
    """

    def start_afresh(script, *arguments, devices=1):
        program = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
        command = [sys.executable, *program, *map(str, arguments)]
        pipes = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment(devices), text=True, **pipes))
        return started[-1]

    return start_afresh


@pytest.fixture(scope="session")
def start(environment, started, start_afresh):
    """`start("train.py", *arguments, devices=1)` -> the running process; that of a script is forked."""
    forks = Forks(environment(1))

    def start(script, *arguments, devices=1):
        if not script.endswith(".py"):
            return start_afresh(script, *arguments, devices=devices)
        started.append(forks.start(script, *arguments, devices=devices))
        return started[-1]

    yield start
    forks.close()


@pytest.fixture(scope="session")
def run(start):
    """`run("train.py", *arguments, code=0)` -> what the command printed; fails if it exits with another code."""

    def run(script, *arguments, code=0, devices=1):
        return finished(start(script, *arguments, devices=devices), code)

    return run


@pytest.fixture(scope="session")
def start_processes(start):
    """`start_processes("train.py", *arguments, processes=2, devices=2)` -> processes of one run, each with devices.

    `each` holds further arguments of each process.
    """

    def start_processes(script, *arguments, processes=2, devices=2, each=((), ())):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"--coordinator_address=localhost:{free.getsockname()[1]}"
        count = f"--num_processes={processes}"
        return [
            start(script, *arguments, *each[i], address, count, f"--process_id={i}", devices=devices)
            for i in range(processes)
        ]

    return start_processes


@pytest.fixture(scope="session")
def run_processes(start_processes):
    """`run_processes("train.py", *arguments, code=0, processes=2, devices=2)` -> what each of them printed."""

    def run_processes(script, *arguments, code=0, processes=2, devices=2, each=((), ())):
        started = start_processes(script, *arguments, processes=processes, devices=devices, each=each)
        return [finished(process, code) for process in started]

    return run_processes


def finished(process, code=0):
    """Waits for it, and returns what it printed; fails if it exits with another code."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert "WARNING:absl" not in output  # each warning would be there twice
    return output


@pytest.fixture(scope="session")
def trained(run, shared):
    """A work folder that was trained without a stop, the same for all workers; do not write into it."""
    folder = shared / "trained"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            output = run("train.py", *TINY, f"--workdir={folder}")
            assert f"Finished at step 12, saved in {folder}/checkpoints" in output
    return folder
