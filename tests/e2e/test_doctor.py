"""The doctor in real processes, which talk over this machine's own network."""

import os
import subprocess
import sys

import portpicker
import pytest

from e2e.conftest import ROOT


@pytest.fixture
def doctor():
    """`doctor(flags of process 0, flags of process 1, ...)` -> exit code and output of each."""

    def doctor(*all_flags):
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "ddpm_jax.doctor", *flags],
                cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for flags in all_flags
        ]  # fmt: skip
        try:
            outputs = [process.communicate(timeout=120)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert "Traceback" not in "".join(outputs)
        return [(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]

    return doctor


def flags(*, num_processes, timeout_s=60):
    address = f"--coordinator_address=localhost:{portpicker.pick_unused_port()}"
    common = (address, f"--num_processes={num_processes}", f"--timeout_s={timeout_s}")
    return [(*common, f"--process_id={process}") for process in range(num_processes)]


def test_one_machine_alone_needs_no_flags(doctor, tmp_path):
    ((code, output),) = doctor([f"--workdir={tmp_path / 'runs' / 'new'}"])
    assert code == 0, output
    assert "1 cpu in all, 1 of them here" in output
    assert output.endswith("Healthy.\n")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_are_healthy(doctor, tmp_path):
    results = doctor(*((*each, f"--workdir={tmp_path}") for each in flags(num_processes=2)))
    for code, output in results:
        assert code == 0, output
        assert "2 cpu in all, 1 of them here" in output
        assert output.endswith("Healthy.\n")


@pytest.mark.slow
def test_the_one_that_is_missing_is_named_to_all(doctor):
    for code, output in doctor(*flags(num_processes=3, timeout_s=5)[:2]):
        assert code == 1, output
        assert "WRONG: Process 2 is missing" in output
        assert output.endswith("Not healthy.\n")


def test_without_process_0_the_others_say_so(doctor):
    ((code, output),) = doctor(flags(num_processes=2, timeout_s=1)[1])
    assert code == 1
    assert "Cannot reach process 0 at localhost:" in output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--num_processes=2"], "--num_processes needs --coordinator_address"),
        (["--coordinator_address=a:1"], "--coordinator_address needs --num_processes and --process_id"),
        (["--coordinator_address=a:1", "--num_processes=2", "--process_id=2"], "--process_id=2 must be in 0..1"),
        (["--num_processes=two"], "flag --num_processes=two: invalid literal"),
        (["--timeout_s=-1"], "flag --timeout_s=-1"),
        (["--timeouts=1"], "Unknown command line flag 'timeouts'"),
        (["now"], "unknown argument 'now'"),
    ],
)
def test_flags_that_make_no_sense_are_refused(doctor, given, message):
    ((code, output),) = doctor(given)
    assert code == 2
    assert message in output
    assert output.count("\n") == 1


def test_variables_stand_for_flags(doctor, monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:port")
    monkeypatch.setenv("SLURM_NTASKS", "3")
    monkeypatch.setenv("SLURM_PROCID", "2")
    ((code, output),) = doctor([])
    assert code == 1
    assert output.startswith("Process 2 of 3 on ")
    assert "--coordinator_address='localhost:port' must be HOST:PORT" in output


def test_help_describes_the_command_and_its_flags(doctor):
    ((code, output),) = doctor(["--help"])
    assert code == 0
    assert output.startswith("Checks whether these hosts can train together")
    assert "--max_skew_s: The allowed difference between clocks." in output
