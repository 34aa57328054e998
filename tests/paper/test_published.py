import pytest

from ddpm_jax.paper import published


def test_the_numbers_agree_with_each_other():
    """As the paper's text relates them (Section 4.3)."""
    simple = published.TABLE_1[-1]
    assert simple.nll_test == pytest.approx(published.RATE_BPD + published.DISTORTION_BPD)
    last, *_ = published.TABLE_4
    assert (round(last.rate_bpd, 2), round(last.rmse, 2)) == (published.RATE_BPD, published.DISTORTION_RMSE)
    assert [row.reverse_steps for row in published.TABLE_4] == list(range(1000, 0, -100))
    for later, earlier in zip(published.TABLE_4, published.TABLE_4[1:], strict=False):
        assert later.rate_bpd > earlier.rate_bpd
        assert later.rmse < earlier.rmse


def test_table_2_repeats_rows_of_table_1():
    for model, objective in zip(published.TABLE_1[-2:], published.TABLE_2[-2:], strict=True):
        assert (model.inception_score, model.fid) == (objective.inception_score, objective.fid)
