import itertools

import pytest

from ddpm_jax.paper import track

# As printed in the README of tqch/ddpm-torch (commit 9a8ecb5): training steps, FID, training loss.
PRINTED = """
46.8k 9.162 0.0295
93.6k 5.778 0.0293
187.2k 4.083 0.0291
421.2k 3.31 0.0284
795.6k 3.188 0.0277
"""


def test_the_curve_is_the_published_one():
    rows = [line.replace("k ", "e3 ").split() for line in PRINTED.split("\n") if line]
    assert list(track.CURVE) == [tuple(map(float, row)) for row in rows]


@pytest.mark.parametrize("point", track.CURVE)
def test_the_curve_goes_through_its_points(point):
    result = track.expected(point.step)
    assert (result.fid, result.loss) == (pytest.approx(point.fid), pytest.approx(point.loss))


def test_half_way_the_curve_has_the_geometric_mean_of_fids_and_the_mean_of_losses():
    step = 66_185  # sqrt(46,800 * 93,600)
    result = track.expected(step)
    assert result.fid == pytest.approx((9.162 * 5.778) ** 0.5, rel=1e-5)
    assert result.loss == pytest.approx((0.0295 + 0.0293) / 2, rel=1e-5)


def test_the_curve_falls_between_its_points_and_ends_level():
    steps = range(46_800, 900_000, 10_000)
    points = [track.expected(step) for step in steps]
    for before, after in itertools.pairwise(points):
        assert before.fid >= after.fid
        assert before.loss >= after.loss
    assert track.expected(2_000_000).fid == pytest.approx(3.188)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (dict(step=795_600, loss=0.0277, fid=3.24), "On track at step 795600: loss 0.0277 (the curve: 0.0277), FID"),
        (dict(step=795_600, loss=0.0277, fid=12.3), "Off track in FID"),  # the raw weights' FID
        (dict(step=93_600, loss=0.04, fid=None), "Off track in loss"),
        (dict(step=93_600, loss=float("nan"), fid=9.0), "Off track in loss and FID"),
        (dict(step=93_600, loss=None, fid=5.8), "On track"),
        (dict(step=93_600, loss=None, fid=None), "neither a loss nor an FID"),
        (dict(step=2000, loss=0.03, fid=3.0), "step 2000 is too early to tell"),
    ],
)
def test_the_verdict(measured, said):
    assert said in track.verdict(**measured)
