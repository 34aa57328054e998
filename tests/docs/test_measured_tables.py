"""The tables of measurements in the pages are those of the kept results."""

import json
from pathlib import Path

import pytest

from benchmarks import few_steps, tpu_targets

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("page", ["README.md", "docs/sampling.md"])
@pytest.mark.parametrize("model", [file.stem for file in sorted((RESULTS / "few_steps").glob("*.json"))])
def test_samplers_by_steps(page, model):
    kept = json.loads((RESULTS / "few_steps" / f"{model}.json").read_text())
    table = few_steps.markdown(kept).split("\n\n")[0]
    assert table in (ROOT / page).read_text()


def test_the_fewest_steps_of_digits():
    kept = json.loads((RESULTS / "few_steps" / "digits.json").read_text())
    assert few_steps.markdown(kept) in (ROOT / "docs" / "sampling.md").read_text()


def test_tpu_targets():
    kept = json.loads((RESULTS / "tpu" / "targets.json").read_text())
    assert tpu_targets.markdown(kept) in (ROOT / "docs" / "running.md").read_text()
