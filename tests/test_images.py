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
