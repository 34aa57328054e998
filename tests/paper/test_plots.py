import numpy as np
from PIL import Image

from ddpm_jax.paper import plots


def test_the_rate_distortion_figure_has_three_panels_with_a_curve_each(tmp_path):
    t = np.arange(100)
    path = tmp_path / "tables" / "rate_distortion.png"
    plots.rate_distortion(path, rate_bpd=np.exp(-t / 10.0), rmse=60.0 * (1.0 - np.exp(-t / 30.0)))
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert path.stat().st_size < 100_000
    assert_each_has_a_curve(np.array_split(pixels, 3, axis=1))


def test_the_quality_figure_has_two_panels_with_a_curve_each(tmp_path):
    rows = [
        dict(reverse_steps=steps, distance=300.0 * 0.995**steps, inception_score=1.0 + steps / 120, deviation=0.1)
        for steps in range(1, 1001, 100)
    ]
    path = tmp_path / "tables" / "progressive.png"
    plots.quality_by_step(path, rows, kind="inception-2015-12-05", num_samples=1000)
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert_each_has_a_curve(np.array_split(pixels, 2, axis=1))


def assert_each_has_a_curve(panels):
    for panel in panels:
        blue = (panel[..., 2] - panel[..., 0]) > 80
        rows, columns = np.nonzero(blue)
        assert len(rows) > 100
        assert np.ptp(rows) > 0.5 * panel.shape[0]  # the curve goes through most of the panel
        assert np.ptp(columns) > 0.5 * panel.shape[1]
