import concurrent.futures
import json
import threading

import pytest

from ddpm_jax.evaluation import bits_per_dim, results
from ddpm_jax.evaluation.results import Score


def test_a_score_measured_again_replaces_the_one_before(tmp_path):
    file, mine, other = tmp_path / "tables" / "metrics.json", {"step": 1}, {"step": 2}
    assert results.read(file) == []
    results.write(file, [Score("fid", "FID@10", 3.0), Score("is", "IS@10", 9.0, 0.1, "deviation")], settings=mine)
    results.write(file, [Score("fid", "FID@10", 2.0)], settings=other)
    results.write(file, [Score("fid", "FID@10", 4.0)], settings=mine)
    assert sorted(score.value for score in results.find(file, settings=mine)) == [4.0, 9.0]
    assert results.find(file, settings=other) == [Score("fid", "FID@10", 2.0)]
    assert results.find(file, settings={"step": 3}) == []
    assert len(results.read(file)) == 3
    assert all({"at", "device", "versions"} <= entry["made"].keys() for entry in results.read(file))


def test_what_several_commands_write_at_the_same_time_is_all_there(tmp_path):
    file, begun = tmp_path / "metrics.json", threading.Barrier(4)

    def measure(step):
        begun.wait()
        for name in ("fid", "is", "kid"):
            results.write(file, [Score(name, name, 1.0)], settings={"step": step})

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(measure, range(4)))
    found = [(entry["settings"]["step"], entry["name"]) for entry in results.read(file)]
    assert sorted(found) == [(step, name) for step in range(4) for name in ("fid", "is", "kid")]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_scores_are_shown_with_their_uncertainty():
    assert str(Score("fid", "FID", 3.1712345)) == "3.17123"
    assert str(Score("is", "IS", 9.46, 0.113, "deviation of 10 splits")) == "9.46 ± 0.11 (deviation of 10 splits)"


SETTINGS = {"step": 1, "samples": {"sha256": "1" * 16, "weights_sha256": "a" * 16}}
OLDER = {"step": 1, "samples": {"sha256": "1" * 16}}  # as written before there were fingerprints of weights


def test_a_score_that_is_older_than_fingerprints_is_found_and_replaced(tmp_path):
    file = tmp_path / "metrics.json"
    results.write(file, [Score("fid", "FID@10", 3.0)], settings=OLDER)
    assert results.find(file, settings=SETTINGS) == [Score("fid", "FID@10", 3.0)]
    results.write(file, [Score("fid", "FID@10", 3.0)], settings=SETTINGS)
    (entry,) = results.read(file)  # two would be averaged, as if of two seeds
    assert entry["settings"] == SETTINGS
    other = {"step": 1, "samples": {"sha256": "2" * 16, "weights_sha256": "b" * 16}}
    assert results.find(file, settings=other) == []


def test_a_table_is_read_for_its_own_weights_and_settings_alone(tmp_path):
    file = tmp_path / "bpd.json"

    def read(weights="a", settings=SETTINGS, **more):
        return results.read_table(file, settings, weights=weights * 16, **{"or_unsigned": True} | more)

    assert read() is None
    table = results.write_table(file, SETTINGS, weights="a" * 16, total=3.7)
    assert table == {"settings": OLDER, "weights_sha256": "a" * 16, "total": 3.7}
    assert read() == read(or_unsigned=False) == table
    assert read(settings=SETTINGS | {"step": 2}) is None
    with pytest.raises(ValueError, match="bpd.json is of the weights aaaaaaaaaaaaaaaa, and these are bbbbbbbbbbbbbbbb"):
        read("b")


def test_a_table_that_is_older_than_fingerprints_is_read_where_it_must_be_the_model_s(tmp_path):
    file = tmp_path / "bpd.json"
    file.write_text(json.dumps({"settings": OLDER, "total": 3.7}))
    assert results.read_table(file, SETTINGS, weights="a" * 16, or_unsigned=True)["total"] == 3.7
    with pytest.raises(ValueError, match="does not say of which weights it is, and these are aaaaaaaaaaaaaaaa"):
        results.read_table(file, SETTINGS, weights="a" * 16, or_unsigned=False)


@pytest.mark.parametrize(("before", "after"), [("3.25", "3.35"), ('"step": 1', '"step": 3'), ("FID@10", "FID@90")])
def test_scores_that_damage_has_changed_are_no_scores(tmp_path, before, after):
    file = tmp_path / "metrics.json"
    results.write(file, [Score("fid", "FID@10", 3.25)], settings={"step": 1})
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(ValueError, match="metrics.json' is no list of scores .'FID@.0' is not as it was written"):
        results.read(file)


def test_scores_of_before_there_were_checksums_are_read(tmp_path):
    file = tmp_path / "metrics.json"
    entry = {"metric": "fid", "name": "FID@10", "value": 3.0, "error": None, "error_name": "", "settings": {"step": 1}}
    file.write_text(json.dumps([entry]))
    assert results.read(file)[0]["value"] == 3.0
    results.write(file, [Score("is", "IS@10", 9.0)], settings={"step": 1})
    assert [entry["value"] for entry in results.read(file)] == [3.0, 9.0]


@pytest.mark.parametrize(("before", "after"), [("3.25", "3.35"), ('"step": 1', '"step": 3')])
def test_a_table_that_damage_has_changed_is_no_table(tmp_path, before, after):
    file = tmp_path / "bpd_step1.json"
    results.write_table(file, SETTINGS, weights="a" * 16, total=3.25)
    file.write_text(file.read_text().replace(before, after))
    with pytest.raises(ValueError, match="bpd_step1.json' is no table .it is not as it was written"):
        results.read_table(file, SETTINGS, weights="a" * 16, or_unsigned=True)
    with pytest.raises(ValueError, match="it is not as it was written"):
        bits_per_dim.read_tables(tmp_path)
