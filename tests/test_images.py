import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ddpm_jax import images


def test_every_uint8_survives_the_round_trip():
    pixels = np.arange(256, dtype=np.uint8)
    x = images.from_uint8(pixels)
    assert x.min() == -1.0
    assert x.max() == 1.0
    np.testing.assert_allclose(x, pixels / 127.5 - 1, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(images.to_uint8(x), pixels)


@given(st.floats(-3, 3, width=32))
def test_to_uint8_takes_the_nearest_and_clips(x):
    exact = np.clip((np.float64(x) + 1) * 127.5, 0, 255)
    assert abs(float(images.to_uint8(np.float32(x))) - exact) <= 0.5 + 1e-4


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=4)), st.integers(0, 5))
def test_grid_holds_every_image_in_reading_order(pixels, columns):
    n, h, w, c = pixels.shape
    picture = images.grid(pixels, columns=columns, min_size=1, gap=1)
    columns = columns or int(np.ceil(np.sqrt(n)))
    assert picture.shape == (-(-n // columns) * (h + 1) + 1, columns * (w + 1) + 1, c)
    for i in range(n):
        top, left = 1 + i // columns * (h + 1), 1 + i % columns * (w + 1)
        np.testing.assert_array_equal(picture[top : top + h, left : left + w], pixels[i])


def test_grid_enlarges_small_images_by_whole_pixels():
    picture = images.grid(np.zeros((4, 8, 8, 1), np.uint8), min_size=380)
    assert picture.shape == (19 * 20, 19 * 20, 1)


LABELS = dict(
    title="a title", columns=3, above=["source", "0.5", "x_t"], left=["t = 1000", "0"], corner="lambda",
    below=[["", "12.3", "4"], ["5", "6", "7"]],
)  # fmt: skip


def places(shape, **labels):
    """Where the images of [N, H, W, C] stand in a labelled grid: [height, width] bool."""
    black, white = (images.labelled_grid(np.full(shape, value, np.uint8), **labels) for value in (0, 255))
    return (black != white).any(axis=-1)


@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (6, 5, 7, 2), (6, 9, 6, 3), (6, 40, 300, 4)])
def test_a_labelled_grid_holds_the_images_as_they_are_and_opaque_labels(shape):
    n, h, w, c = shape
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    picture, where = images.labelled_grid(pixels, **LABELS), places(shape, **LABELS)
    scale = round(np.sqrt(where.sum() / (n * h * w)))
    shown = picture[where].reshape(2, h, scale, 3, w, scale, c)
    np.testing.assert_array_equal(shown, shown[:, :, :1, :, :, :1].repeat(scale, 2).repeat(scale, 5))
    np.testing.assert_array_equal(shown[:, :, 0, :, :, 0].swapaxes(1, 2).reshape(shape), pixels)
    around = picture[~where]
    assert around[:, 0].min() == 0
    np.testing.assert_array_equal(around[:, :3], around[:, :1].repeat(min(c, 3), 1))  # grey
    assert (around[:, 3:] == 255).all()


@pytest.mark.parametrize("column", [0, 1, 2])
def test_labels_stand_above_below_and_left_of_their_images(column):
    shape = (6, 8, 8, 1)
    where, picture = places(shape, **LABELS), images.labelled_grid(np.zeros(shape, np.uint8), **LABELS)
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    (upper, lower), of_column = np.split(rows, 2), np.split(columns, 3)[column]

    def changed(**labels):
        """The rows and columns that other labels change."""
        other = images.labelled_grid(np.zeros(shape, np.uint8), **LABELS | labels) != picture
        return np.flatnonzero(other.any(axis=(1, 2))), np.flatnonzero(other.any(axis=(0, 2)))

    without = [label if i != column else "" for i, label in enumerate(LABELS["above"])]
    ys, xs = changed(above=without)
    assert ys.max() < upper.min()
    assert of_column.min() <= xs.min() <= xs.max() <= of_column.max()
    assert abs((xs.min() + xs.max()) / 2 - of_column.mean()) < 2
    ys, xs = changed(below=[LABELS["below"][0], ["" if i == column else str(5 + i) for i in range(3)]])
    assert lower.max() < ys.min()
    assert of_column.min() <= xs.min() <= xs.max() <= of_column.max()
    ys, xs = changed(left=["t = 1000", "1"])
    assert xs.max() < columns.min()
    assert lower.min() <= ys.min() <= ys.max() <= lower.max()
    assert changed(corner="")[1].max() < columns.min()
    assert changed(title="another")[0].max() < changed(corner="")[0].min()


def test_a_title_is_broken_into_lines_that_fit():
    pixels, words = np.zeros((1, 32, 32, 3), np.uint8), "a word of many " * 20
    short, long = (images.labelled_grid(pixels, title=title) for title in ("a", words))
    assert short.shape[1] == long.shape[1]
    assert len(long) > len(short) + 40
    assert (long[:, -3:] == 255).all()  # nothing runs over the edge
    broken = images.labelled_grid(pixels, title="a\na")
    assert len(short) < len(broken) < len(long)


def test_images_grow_until_the_labels_of_narrow_columns_can_be_read():
    wide = places((13, 8, 8, 1), columns=13, title="", above=["1"] * 13).any(axis=0).sum()
    assert places((13, 8, 8, 1), columns=13, title="", above=["distances"] * 13).any(axis=0).sum() > wide


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (4, "RGBA")])
def test_save_png_keeps_the_pixels(tmp_path, channels, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    images.save_png(tmp_path / "new" / "picture.png", pixels)
    with Image.open(tmp_path / "new" / "picture.png") as image:
        assert image.mode == mode
        shown = np.asarray(image).reshape(5, 7, -1)
        np.testing.assert_array_equal(shown, pixels if channels > 2 else pixels[..., :1])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_animation_keeps_its_frames_and_pauses_on_the_last(tmp_path, channels):
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 20, channels), dtype=np.uint8)
    path = tmp_path / "new" / "animation.webp"
    images.save_animation(path, frames, frame_ms=50, last_ms=700)
    with Image.open(path) as animation:
        assert (animation.n_frames, animation.size, animation.info["loop"]) == (4, (20, 16), 0)
        for i, frame in enumerate(frames):
            animation.seek(i)
            np.testing.assert_array_equal(np.asarray(animation.convert("RGB")), np.broadcast_to(frame, (16, 20, 3)))
            assert animation.info["duration"] == (700 if i == 3 else 50)


def test_an_animation_can_be_a_gif(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 20, 1), dtype=np.uint8)
    images.save_animation(tmp_path / "animation.gif", frames)
    with Image.open(tmp_path / "animation.gif") as animation:
        assert (animation.n_frames, animation.size) == (3, (20, 16))
        np.testing.assert_array_equal(np.asarray(animation.convert("L")), frames[0, :, :, 0])
