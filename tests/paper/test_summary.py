import json
import re
import urllib.parse
from types import SimpleNamespace

import pytest

from ddpm_jax.cli import paper
from ddpm_jax.configs import digits
from ddpm_jax.evaluation import results
from ddpm_jax.evaluation.results import Score
from ddpm_jax.paper import figures, summary
from ddpm_jax.runs import trained_model, workdir
from ddpm_jax.runtime import compilation_cache
from ddpm_jax.runtime.signals import Stopped


def test_pictures_are_linked_from_where_the_report_lies(tmp_path, monkeypatch):
    folder = tmp_path / "my runs" / "digits (1)"
    workdir.write_config(folder, digits.get_config())
    (folder / "tables").mkdir()
    (folder / "tables" / "rate_distortion_step9.png").touch()
    monkeypatch.chdir(tmp_path)
    text = summary.write([folder], (tmp_path / "report").relative_to(tmp_path))
    (link,) = re.findall(r"!\[rate_distortion_step9\]\((\S+)\)\n", text)
    assert link.startswith("../my%20runs/")
    assert (tmp_path / "report" / urllib.parse.unquote(link)).is_file()


def test_runs_of_one_name_have_their_own_figures_with_paths_from_the_report(tmp_path):
    folders = [tmp_path / name / "a|b" for name in ("one", "two")]
    for folder in folders:
        workdir.write_config(folder, digits.get_config())
        (folder / "tables").mkdir()
        (folder / "tables" / "rate_distortion_step9.png").touch()
        results.write(folder / "tables" / "metrics.json", [Score("fid", "FID", 1.0)], settings={"data": 1, "split": 2})
    text = summary.write(folders, tmp_path / "report")
    assert json.loads((tmp_path / "report" / "tables.json").read_text())["figures"] == {
        str(folder): [f"../{folder.parent.name}/a|b/tables/rate_distortion_step9.png"] for folder in folders
    }
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {tmp_path}/one"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 5  # four cells
    summary.write(folders[:1], folders[0] / "report")
    figures = json.loads((folders[0] / "report" / "tables.json").read_text())["figures"]
    assert figures == {"a|b": ["../tables/rate_distortion_step9.png"]}


@pytest.mark.parametrize(
    ("folders", "out", "message"),
    [
        ([], None, "Name at least one"),
        (["a", "b"], None, "--out=... must be given: the folder for the tables of 2 runs"),
        (["a"], "file/report", "--out=file/report must be a folder, and file is a file"),
    ],
)
def test_where_the_report_goes_is_known_before_any_work(tmp_path, monkeypatch, folders, out, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=re.escape(message)):
        paper._paper(SimpleNamespace(out=out, figures=True), folders)


def test_the_report_of_one_run_lies_in_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper.compilation_cache, "enable", lambda: None)
    workdir.write_config(tmp_path / "run", digits.get_config())
    assert paper._paper(SimpleNamespace(out=None, figures=False), [str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "report" / "tables.md").is_file()
    assert f"Written to {tmp_path}/run/report/tables.md" in capsys.readouterr().out


@pytest.fixture
def attempted(monkeypatch):
    """The figures that were begun; none is drawn, that of the neighbours ends as `attempted.error` says."""
    attempted = SimpleNamespace(names=[], error=None)

    def draw(model, folder, mode):
        attempted.names.append(mode)
        if mode == "neighbours":
            raise attempted.error

    monkeypatch.setattr(figures, "draw", draw)
    for name, number in (("_draw_figure_5", "5"), ("_draw_figure_10", "10")):
        monkeypatch.setattr(summary, name, lambda *_, number=number: attempted.names.append(number))
    monkeypatch.setattr(trained_model, "load", lambda _: SimpleNamespace(step=9, short_weights="ema"))
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)
    return attempted


@pytest.mark.parametrize(
    ("error", "message", "drawn"),
    [
        (ValueError("too large"), "run: neighbours was not drawn: too large", [*figures.MODES, "5", "10"]),
        (Stopped("by a signal", 130), "by a signal", [*figures.MODES]),
        (RuntimeError("a mistake"), "a mistake", [*figures.MODES]),
    ],
)
def test_the_tables_are_written_whatever_happens_to_a_figure(tmp_path, attempted, error, message, drawn):
    workdir.write_config(tmp_path / "run", digits.get_config())
    attempted.error = error
    with pytest.raises(type(error), match=message):
        paper._paper(SimpleNamespace(out=str(tmp_path / "report"), figures=True), [str(tmp_path / "run")])
    assert attempted.names == drawn
    assert (tmp_path / "report" / "tables.md").is_file()
