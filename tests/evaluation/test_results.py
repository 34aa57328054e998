from ddpm_jax.evaluation import results
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


def test_scores_are_shown_with_their_uncertainty():
    assert str(Score("fid", "FID", 3.1712345)) == "3.17123"
    assert str(Score("is", "IS", 9.46, 0.113, "deviation of 10 splits")) == "9.46 ± 0.11 (deviation of 10 splits)"
