import numpy as np
from matplotlib.figure import Figure
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


def drawn(monkeypatch, draw, *arguments, **settings):
    """The figure that a function saves."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, dpi: saved.append(figure))
    draw(*arguments, **settings)
    return saved[0]


def test_the_rate_distortion_figure_says_what_it_shows_with_the_paper_s_table_beside_it(tmp_path, monkeypatch):
    t = np.arange(500)
    curves = dict(rate_bpd=np.exp(-t / 10.0), rmse=60.0 * (1.0 - np.exp(-t / 30.0)))
    figure = drawn(
        monkeypatch, plots.rate_distortion, tmp_path / "a.png", **curves, title="mine, step 9", with_paper=True
    )
    assert figure.get_suptitle() == "mine, step 9"
    x_and_y = []
    for axes in figure.axes:
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["ours", "paper, CIFAR-10 (Table 4)"]
        x_and_y.append(axes.lines[1].get_xydata()[0])
    np.testing.assert_allclose(x_and_y, [[500, 0.95136], [500, 1.77581], [1.77581, 0.95136]])  # after all steps
    alone = drawn(monkeypatch, plots.rate_distortion, tmp_path / "a.png", **curves)
    assert all(len(axes.lines) == 1 and axes.get_legend() is None for axes in alone.axes)


def test_the_quality_figure_says_what_it_shows(tmp_path, monkeypatch):
    rows = [dict(reverse_steps=n, distance=1.0, inception_score=1.0, deviation=0.1) for n in (1, 2)]
    settings = dict(kind="inception", num_samples=9, title="mine, step 9")
    figure = drawn(monkeypatch, plots.quality_by_step, tmp_path / "a.png", rows, **settings)
    assert figure.get_suptitle() == "mine, step 9"
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "mean ± deviation of splits"


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


def test_a_score_is_drawn_by_length_with_its_errors(tmp_path, monkeypatch):
    points = {0.1: (2.0, 0.5), 0.05: (3.0, None)}
    figure = drawn(monkeypatch, plots.score_by_length, tmp_path / "a.png", points, name="FID", title="mine")
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0.05, 3.0], [0.1, 2.0]])
    assert (axes.get_ylabel(), figure.get_suptitle()) == ("FID", "mine")
