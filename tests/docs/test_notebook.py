"""The notebook's cells run, one after another."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "digits.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_on_digits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names = {}
    for i, cell in enumerate(cells):
        code = "".join(cell["source"]).replace("num_steps=1200, log_every=200", "num_steps=200, log_every=200")
        exec(compile(code, f"digits.ipynb, cell {i + 1}", "exec"), names)
        assert cell["outputs"] or i in (0, 3), f"cell {i + 1} was not run when the notebook was saved"
    before, after = names["x"][:10], names["there_and_back"](names["x"][:10])
    assert abs(after - before).mean() < 0.1
