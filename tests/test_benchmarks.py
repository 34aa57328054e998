import json

import numpy as np
import pytest

from benchmarks import few_steps, report, timing
from benchmarks.report import Measured, Ratio, Report
from ddpm_jax.evaluation import image_sets


@pytest.fixture
def kept():
    found = Report("Title", dict(batch=8))
    found.add({"ours": [2.0, 1.0, 4.0]}, "s")
    found.rows["theirs"] = Measured([100.0, 300.0], "images/s")
    found.ratios = {"fast": Ratio(1.5, at_least=1.2), "small": Ratio(0.5, at_most=0.03), "said": Ratio(7.0)}
    environment = dict(
        device="cpu", devices=2, processor="a processor", cores=2, date="2026-01-01", commit="", dirty=True,
        load_average=[0.0, 1.0], variables={"XLA_FLAGS": "--flag"},
    )  # fmt: skip
    return report.to_json(found, environment)


def test_what_is_kept_holds_all_rounds(kept):
    assert json.loads(json.dumps(kept)) == kept
    assert kept["rows"]["ours"] == dict(unit="s", min=1.0, median=2.0, max=4.0, values=[2.0, 1.0, 4.0])
    assert [ratio["met"] for ratio in kept["ratios"].values()] == [True, False, None]


def test_the_table_says_what_is_best_and_what_was_missed(kept):
    text = report.markdown(kept)
    assert "| ours | 1 | 2 | 4 | s |" in text
    assert "| theirs | 300 | 200 | 100 | images/s |" in text  # of rates the most is the best
    assert "| fast | 1.5 | ≥ 1.2: met |" in text
    assert "| small | 0.5 | ≤ 0.03: **missed** |" in text
    assert "| said | 7 |  |" in text
    assert "commit unknown with changes" in text
    assert "2 cores (a processor), XLA_FLAGS=--flag, 2026-01-01" in text


def test_the_tables_of_a_folder_stand_in_one_file(kept, tmp_path):
    (tmp_path / "a_cpu.json").write_text(json.dumps(kept))
    assert report.write_tables(tmp_path).read_text().count("## Title") == 1


def test_contenders_come_in_turns_and_first_calls_do_not_count(monkeypatch):
    calls, clock = [], iter(range(100))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock) ** 2))
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    rounds = timing.alternate(contenders, repeats=2, units={"a": 1, "b": 10}, warmups=1)
    assert calls == list("ababab" + "ab")
    assert rounds.first == dict(a=1.0, b=5.0)
    assert rounds.seconds == dict(a=[9.0, 17.0], b=[1.3, 2.1])
    assert timing.fastest(rounds.seconds, "ab") == "b"
    assert timing.ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0


def test_classes_are_drawn_as_often_as_the_reference_has_them():
    labels = np.array([2, 0, 2, 2])
    reference = image_sets.ImageSet({}, (4, 8, 8, 1), read=lambda indices: None, read_labels=lambda i: labels[i])
    assert sorted(few_steps._classes_of(reference).split(",")) == ["0", "2", "2", "2"]


def test_the_fewest_steps_are_those_within_a_deviation_of_the_whole_chain():
    results = {
        "ancestral 1000": dict(distances=[2.0, 3.0, 4.0], images_per_s=[7.0, 8.0, 9.0]),
        "ddim 1000": dict(distances=[3.0, 3.0, 3.0], images_per_s=[8.0, 8.0, 8.0]),
        "ddim 10": dict(distances=[3.0, 4.0, 5.0], images_per_s=[800.0, 800.0, 800.0]),
        "heun 10": dict(distances=[5.0, 5.0, 5.0], images_per_s=[400.0, 400.0, 400.0]),
    }
    text = few_steps.markdown({"results": results})
    assert "| sampler | 1,000 | 10 |" in text
    assert "| `ddim` | 3 ± 0, 8/s | 4 ± 1, 800/s |" in text
    assert "| `heun` |  | 5 ± 0, 400/s |" in text
    assert "| sampler | `ancestral` with 1,000, 4 | the same sampler with the most steps measured |" in text
    assert "| `ddim` | 10 | 1,000 |\n| `heun` | none | 10 |" in text
