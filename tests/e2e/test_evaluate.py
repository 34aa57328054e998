import json
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from e2e.test_train import wait_for

NAME = "step12_ema_test_7_seed0"


@pytest.fixture(scope="module")
def workdir(trained, tmp_path_factory):
    """A copy of the trained work folder, with the tables of seven images in it, which no batch of four divides."""
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained, folder)
    return folder


@pytest.fixture(scope="module")
def output(run, workdir):
    return run("evaluate.py", f"--workdir={workdir}", "--metrics=bpd,rd", "--num_images=7", "--batch_size=4")


def read(folder, name):
    return json.loads((folder / "tables" / f"{name}.json").read_text())


def assert_same(ours, theirs, rel=1e-4):
    """Two tables, to float rounding."""
    assert ours.keys() == theirs.keys()
    assert ours["settings"] == theirs["settings"]
    for name, value in ours["bits_per_dim"].items():
        assert value == pytest.approx(theirs["bits_per_dim"][name], rel=rel)
    for name, values in ours.get("by_t", {}).items():
        np.testing.assert_allclose(values, theirs["by_t"][name], rtol=rel)


def test_the_table_says_what_the_bound_consists_of(output, workdir):
    found = read(workdir, f"bpd_{NAME}")
    assert found["settings"] == {
        "data": "digits", "split": "test", "num_images": 7, "seed": 0, "step": 12, "weights": "ema",
        "num_timesteps": 10, "clip": True,
    }  # fmt: skip
    sums = {name: value["mean"] for name, value in found["bits_per_dim"].items()}
    assert sums["total"] == pytest.approx(sums["L_0"] + sums["L_1 + ... + L_{T-1}"] + sums["L_T"], rel=1e-6)
    assert sums["rate L_1 + ... + L_T"] == pytest.approx(sums["total"] - sums["L_0"], rel=1e-6)
    assert sums["total"] == pytest.approx(sum(found["by_t"]["terms_bpd"]) + sums["L_T"], rel=1e-6)
    for name, value in found["bits_per_dim"].items():
        assert 0 < value["standard_error"] < value["mean"]
        line = next(line for line in output.splitlines() if line.startswith(f"  {name}  "))
        assert f"{value['mean']:.7f} ± {value['standard_error']:.7f}" in line


def test_the_rows_are_those_of_table_4(output, workdir):
    found = read(workdir, f"bpd_{NAME}")
    rows, curves = found["rate_distortion"], found["by_t"]
    assert [row["reverse_steps"] for row in rows] == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    for row in rows:
        t = 10 - row["reverse_steps"]
        assert (row["rate_bpd"], row["rmse"]) == (curves["rate_bpd"][t], curves["rmse"][t])
        assert row["rate_standard_error"] > 0
        assert 0 < row["rmse_standard_error"] < row["rmse"]
    assert rows[0]["rate_bpd"] == pytest.approx(found["bits_per_dim"]["rate L_1 + ... + L_T"]["mean"])
    first = next(line.split() for line in output.splitlines() if line.startswith("  10   "))
    assert first == [
        "10", f"{rows[0]['rate_bpd']:.5f}", "±", f"{rows[0]['rate_standard_error']:.5f}",
        f"{rows[0]['rmse']:.3f}", "±", f"{rows[0]['rmse_standard_error']:.3f}",
    ]  # fmt: skip
    assert "(paper: 1.78 + 1.97, 0.95)" not in output  # whose Table 4 is about other images
    with Image.open(workdir / "tables" / f"rate_distortion_{NAME}.png") as picture:
        assert np.asarray(picture).std() > 10  # not blank


def test_a_table_that_is_there_is_not_computed_again(run, output, workdir):
    before = (workdir / "tables" / f"bpd_{NAME}.json").stat().st_mtime_ns
    again = run("evaluate.py", f"--workdir={workdir}", "--metrics=bpd", "--num_images=7", "--batch_size=4")
    assert "which is there already" in again
    assert [line for line in again.splitlines() if "±" in line] == [
        line for line in output.splitlines() if "±" in line and (line.startswith("  L_") or " total " in line or
        line.startswith("  rate L_1 + ... + L_T "))
    ]  # fmt: skip
    assert (workdir / "tables" / f"bpd_{NAME}.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "devices"), [(3, 1), (5, 4)])
def test_batch_size_and_devices_do_not_matter(run, output, workdir, trained, tmp_path, batch_size, devices):
    shutil.copytree(trained, tmp_path / "run")
    for folder, size, count in ((tmp_path / "run", batch_size, devices), (workdir, 4, 1)):
        run(
            "evaluate.py", f"--workdir={folder}", "--metrics=bpd,bpd_fast", "--num_images=7", "--num_timesteps=4",
            f"--batch_size={size}", devices=count,
        )  # fmt: skip
    for table in (f"bpd_{NAME}", f"bpd_fast_{NAME}_timesteps4"):
        assert_same(read(workdir, table), read(tmp_path / "run", table))


@pytest.mark.slow
def test_the_fast_estimate_from_every_timestep_is_the_bound(run, output, workdir):
    arguments = (f"--workdir={workdir}", "--metrics=bpd_fast", "--num_images=7", "--batch_size=4")
    said = run("evaluate.py", *arguments)  # by default 20 timesteps, or all where there are fewer
    fast, full = read(workdir, f"bpd_fast_{NAME}_timesteps10"), read(workdir, f"bpd_{NAME}")
    assert fast["timesteps_per_image"] == 10
    assert fast["bits_per_dim"]["total"] == pytest.approx(full["bits_per_dim"]["total"], rel=1e-4)
    assert "estimated from 10 timesteps an image" in said


@pytest.mark.slow
def test_the_likelihood_of_the_ode_does_not_depend_on_batches_or_pieces(run, workdir, trained, tmp_path):
    """By one device in batches of four, by two of three each: these fill up a last batch, and take other pieces."""
    shutil.copytree(trained, tmp_path / "run")
    arguments = ("--metrics=bpd_ode", "--num_images=7")
    said = run("evaluate.py", f"--workdir={workdir}", *arguments, "--batch_size=4")
    run("evaluate.py", f"--workdir={tmp_path / 'run'}", *arguments, "--batch_size=6", devices=2)
    ours, theirs = (read(folder, f"bpd_ode_{NAME}_steps9") for folder in (workdir, tmp_path / "run"))
    assert_same(ours, theirs)
    total = ours["bits_per_dim"]["total"]
    assert "under the probability-flow ODE, in 9 steps" in said
    assert f"{total['mean']:.7f} ± {total['standard_error']:.7f}" in said
    entries = json.loads((workdir / "tables" / "metrics.json").read_text())
    (entry,) = (entry for entry in entries if entry["metric"] == "bpd_ode")
    assert (entry["value"], entry["settings"]["solver_steps"]) == (total["mean"], 9)
    refused = run("evaluate.py", f"--workdir={workdir}", *arguments, "--num_timesteps=10", code=1)
    assert "num_steps=10 must be from 1 to 9" in refused


@pytest.mark.slow
def test_seed_weights_and_images_make_other_numbers(run, output, workdir):
    totals = {read(workdir, f"bpd_{NAME}")["bits_per_dim"]["total"]["mean"]}
    names = ("step12_ema_test_7_seed1", "step12_raw_test_7_seed0", "step12_ema_test_9_seed0")
    for choice, name in zip(("--seed=1", "--noema", "--num_images=9"), names, strict=True):
        run("evaluate.py", f"--workdir={workdir}", "--num_images=7", "--batch_size=4", choice)
        totals.add(read(workdir, f"bpd_{name}")["bits_per_dim"]["total"]["mean"])
    assert len(totals) == 4


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_table(start, run, trained, tmp_path):
    for name in ("stopped", "through"):
        shutil.copytree(trained, tmp_path / name)
    arguments = ("--metrics=bpd", "--num_images=350", "--batch_size=2")
    process = start("evaluate.py", f"--workdir={tmp_path / 'stopped'}", *arguments)
    count = tmp_path / "stopped" / "tables" / "bpd_step12_ema_test_350_seed0.partial.json"
    wait_for(count.exists, process)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 143, said
    done = json.loads(count.read_text())["done"]
    assert f"Stopped after {done} of 350 images" in said
    said = run("evaluate.py", f"--workdir={tmp_path / 'stopped'}", *arguments)
    assert f"Continuing after {done} of 350 images" in said
    run("evaluate.py", f"--workdir={tmp_path / 'through'}", *arguments)
    ours, theirs = (tmp_path / name / "tables" for name in ("stopped", "through"))
    table = "bpd_step12_ema_test_350_seed0.json"
    assert (ours / table).read_bytes() == (theirs / table).read_bytes()
    assert sorted(path.name for path in ours.iterdir()) == [table, "metrics.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--metrics=bdp"],
            "Unknown metric 'bdp' in --metrics; choose from fid, fid_infinity, is, kid, pr, fd_classifier",
        ),
        (["--split=val"], "digits has the splits train, test, all, and no 'val'"),
        (["--num_images=356"], "--num_images=356 must be from 2 to the 355 that split 'test' has"),
        (["--metrics=bpd_fast", "--num_timesteps=11"], "num_timesteps=11 must be from 1 to the process's 10"),
        (["--step=5"], "there are [4, 8, 12]"),
        (["surprise"], "surprise"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(run, trained, arguments, message):
    assert message in run("evaluate.py", f"--workdir={trained}", *arguments, code=1)
    assert not (trained / "tables").exists()


def test_a_folder_that_holds_no_run_is_refused(run, tmp_path):
    assert "is no work folder" in run("evaluate.py", f"--workdir={tmp_path}", code=1)
