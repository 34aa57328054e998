"""Transparent images, shown on a background."""

import io

import numpy as np
import pytest
from PIL import Image

from ddpm_jax import data
from ddpm_jax.data import decode as decoding
from ddpm_jax.data.decode import decode


def png(image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


RGBA = np.array([[[200, 100, 50, 0], [200, 100, 50, 51], [200, 100, 50, 255]]], np.uint8)


def shown(background):
    alpha = RGBA[..., 3:] / 255
    return np.round(RGBA[..., :3] * alpha + np.array(background) * (1 - alpha))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_what_lies_under_the_transparency_is_not_shown(background):
    rgb = decode(png(Image.fromarray(RGBA)), image_shape=(1, 3, 3), background=background)
    np.testing.assert_allclose(rgb, shown(background), atol=1)
    np.testing.assert_array_equal(rgb[:, [0, 2]], shown(background)[:, [0, 2]])
    grey = decode(png(Image.fromarray(RGBA)), image_shape=(1, 3, 1), background=background)
    np.testing.assert_allclose(grey[..., 0], shown(background) @ [0.299, 0.587, 0.114], atol=1.5)


def test_the_background_is_white_where_nothing_else_is_asked_for():
    np.testing.assert_array_equal(decode(png(Image.fromarray(RGBA)), image_shape=(1, 3, 3))[0, 0], 255)


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_colour_or_palette_entry_that_stands_for_nothing_is_transparent(mode):
    image = Image.new(mode, (2, 1))
    image.putdata([(7, 8, 9), (1, 2, 3)] if mode == "RGB" else [0, 1])
    if mode == "P":
        image.putpalette([7, 8, 9, 1, 2, 3])
    encoded = png(image, transparency=(7, 8, 9) if mode == "RGB" else 0)
    pixels = decode(encoded, image_shape=(1, 2, 3))
    np.testing.assert_array_equal(pixels, [[[255] * 3, [1] * 3 if mode == "L" else [1, 2, 3]]])


def test_alpha_stays_where_it_is_a_channel():
    np.testing.assert_array_equal(decode(png(Image.fromarray(RGBA)), image_shape=(1, 3, 4)), RGBA)


def test_opaque_images_keep_their_pixels_and_nothing_is_said(caplog):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    pixels[..., 3] = 255
    decoding._say_once.cache_clear()
    opaque = decode(png(Image.fromarray(pixels)), image_shape=(16, 16, 3))
    np.testing.assert_array_equal(opaque, pixels[..., :3])
    assert not caplog.text
    for _ in range(3):
        decode(png(Image.fromarray(RGBA)), image_shape=(1, 3, 3))
    assert caplog.text.count("transparent images; they are shown on the colour (255, 255, 255)") == 1


@pytest.mark.parametrize("memory_limit_gib", [1.0, 0.0])
def test_the_background_is_that_of_the_config_in_memory_and_streamed(tmp_path, memory_limit_gib):
    (tmp_path / "a.png").write_bytes(png(Image.fromarray(RGBA)))
    source = data.load("image_folder", data_dir=str(tmp_path), image_size=(1, 3), channels=3, background=(1, 2, 3),
                       memory_limit_gib=memory_limit_gib)  # fmt: skip
    np.testing.assert_array_equal(source.read_one(0)[0][0, 0], [1, 2, 3])
