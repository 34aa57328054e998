"""The benchmark of samplers by steps, on a real work folder."""

import json

import pytest


@pytest.mark.slow
def test_what_is_measured_is_kept_and_not_measured_again(run, trained, tmp_path):
    file = tmp_path / "digits.json"
    command = ("benchmarks.few_steps", trained, f"--results={file}", "--num_samples=30", "--seeds=2")
    run(*command, "--samplers=ancestral", "--steps=10")
    first = json.loads(file.read_text())["results"]["ancestral 10"]
    table = run(*command, "--samplers=ancestral,heun", "--steps=10,4")
    results = json.loads(file.read_text())["results"]
    assert results["ancestral 10"] == first
    assert set(results) == {"ancestral 10", "ancestral 4", "heun 10", "heun 4"}
    for result in results.values():
        assert len(set(result["distances"])) == 2
        assert min(result["distances"] + result["images_per_s"]) > 0
    assert "| sampler | 10 | 4 |" in table
