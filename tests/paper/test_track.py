import itertools

import pytest

from ddpm_jax.paper import track


@pytest.mark.parametrize("point", track.CURVE)
def test_the_curve_goes_through_its_points(point):
    found = track.expected(point.step)
    assert (found.fid, found.loss) == (pytest.approx(point.fid), pytest.approx(point.loss))


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
