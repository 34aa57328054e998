"""What `make bench` does on a GPU, run on a CPU that is taken for one: the benchmarks' GPU code has no typo."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from benchmarks import __main__ as all_benchmarks
from benchmarks import command, hardware, report
from ddpm_jax.runs import config, defaults

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(hardware, "on_gpu", lambda: True)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")  # set by the command; so it is unset after the test
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")


@pytest.fixture
def cuda(gpu, torch, monkeypatch):
    """PyTorch on the CPU in the place of CUDA; compilation is left out, but for the check of its mode."""
    pytest.importorskip("diffusers")
    torch_unet = importlib.import_module("benchmarks.torch_unet")

    def compiled(function, *, mode):
        assert mode == "default" or mode in torch._inductor.list_mode_options()
        return function

    monkeypatch.setattr(torch_unet, "device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2**30)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def _run(monkeypatch, folder, name):
    """Runs a benchmark as its command does; returns what is kept."""
    monkeypatch.setattr(sys, "argv", [name, "--quick", f"--results={folder}"])
    command.run(importlib.import_module(f"benchmarks.{name}").measure)
    (path,) = folder.glob("*.json")
    return json.loads(path.read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # which PyTorch itself still uses
@pytest.mark.parametrize("name", ["train_step", "train_step_256", "chain", "digits", "checkpoints", "memory"])
def test_a_benchmark_runs_to_its_end(cuda, monkeypatch, tmp_path, name):
    kept = _run(monkeypatch, tmp_path, name)
    if name not in ("digits", "checkpoints"):
        assert kept["settings"]["precision"] == "bfloat16"
    if name in ("train_step", "train_step_256", "chain", "digits"):
        assert any("torch.compile, CUDA graphs" in row for row in kept["rows"])
    assert f"## {kept['title']}" in report.write_tables(tmp_path).read_text()


@pytest.mark.slow
def test_the_input_pipeline_runs_to_its_end(cuda, monkeypatch, tmp_path):
    rows = _run(monkeypatch, tmp_path, "input_pipeline")["rows"]
    assert "ours, folder, worker processes" in rows


@pytest.mark.slow
@pytest.mark.parametrize("of_jax", [True, False])
def test_a_batch_that_does_not_fit_is_halved(cuda, monkeypatch, of_jax):
    train_step_256, torch = importlib.import_module("benchmarks.train_step_256"), importlib.import_module("torch")
    full = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: no") if of_jax else torch.OutOfMemoryError("no")
    tried = []

    def compare(title, settings, *, quick):
        tried.append(settings.train.batch_size)
        if tried[-1] > 16:
            raise full
        return "fits"

    monkeypatch.setattr(train_step_256.train_step, "compare", compare)
    assert train_step_256.measure(quick=False) == "fits"
    assert tried == [64, 32, 16]
    full = ValueError("another error")
    monkeypatch.setattr(train_step_256, "_LARGEST", 32)
    with pytest.raises(ValueError, match="another error"):
        train_step_256.measure(quick=False)


def test_the_cold_start_of_the_large_model_has_settings_that_exist(gpu, tmp_path):
    from benchmarks import cold_start

    flags = dict(flag.removeprefix("--").split("=", 1) for flag in cold_start._cifar10(tmp_path / "images"))
    assert (ROOT / flags.pop("config")).is_file()
    assert flags["config.model.dtype"] == "bfloat16"
    settings = defaults.get_config()
    known = dict(config._flatten(settings.to_dict()))
    for name, text in flags.items():
        name = name.removeprefix("config.")
        settings.update_from_flattened_dict({name: type(known[name])(text)})
    config.check(settings)


def test_all_benchmarks_of_a_gpu_are_run_and_leave_each_other_memory(gpu, monkeypatch, tmp_path):
    run = []

    def record(arguments, cwd):
        assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"  # or this process would keep most of the GPU
        run.append(arguments[2])
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick", f"--results={tmp_path}"])
    assert all_benchmarks.main() == 0
    assert all((ROOT / f"{name.replace('.', '/')}.py").is_file() for name in run)
    assert "benchmarks.train_step_256" in run
    assert "benchmarks.devices" not in run  # it measures a CPU


def test_results_are_named_after_the_gpu(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(device_kind="NVIDIA H200")])
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert hardware.slug() == "nvidia_h200_x8"


@pytest.mark.parametrize(("cuda", "packages"), [("", "-r requirements-bench.txt"), ("12", "jax[cuda12]")])
def test_make_installs_the_jax_of_the_gpu(cuda, packages):
    made = subprocess.run(["make", "-n", "bench", f"CUDA={cuda}"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert packages in made.stdout
    assert ("jax[" in made.stdout) == bool(cuda)
