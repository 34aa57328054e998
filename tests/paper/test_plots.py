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
    for panel in np.array_split(pixels, 3, axis=1):
        blue = (panel[..., 2] - panel[..., 0]) > 80
        rows, columns = np.nonzero(blue)
        assert len(rows) > 100
        assert np.ptp(rows) > 0.5 * panel.shape[0]  # the curve goes through most of the panel
        assert np.ptp(columns) > 0.5 * panel.shape[1]
