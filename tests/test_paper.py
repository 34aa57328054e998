import pytest

from ddpm_jax import paper


def test_the_numbers_agree_with_each_other():
    """As the paper's text relates them (Section 4.3)."""
    nll = paper.TABLE_1_NLL["Ours (L_simple)"].test
    assert nll == pytest.approx(paper.RATE_BPD + paper.DISTORTION_BPD)
    last, *_ = paper.TABLE_4
    assert (round(last.rate_bpd, 2), round(last.rmse, 2)) == (paper.RATE_BPD, paper.DISTORTION_RMSE)
    assert [row.reverse_steps for row in paper.TABLE_4] == list(range(1000, 0, -100))
    for later, earlier in zip(paper.TABLE_4, paper.TABLE_4[1:], strict=False):
        assert later.rate_bpd > earlier.rate_bpd
        assert later.rmse < earlier.rmse
