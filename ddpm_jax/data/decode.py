"""Decodes an image to uint8 [H, W, C]: channels, centre crop, resize. The only file that knows Pillow's modes."""

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpm_jax.runtime import foreign_files

_log = logging.getLogger(__name__)

# All formats that we decode. Pillow has more, among them EPS, which starts another program.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
EXTENSIONS = (".bmp", ".gif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
_UPPER_EIGHT = np.round(np.arange(65536) / 257.0).astype(np.uint8)  # a table: a huge picture as floats takes gigabytes
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
WHITE = (255, 255, 255)


class BrokenImageError(Exception):
    """Signals that an image cannot be decoded; the message is the reason."""


def check_geometry(*, image_size: tuple[int, int] | None, channels: int | None) -> None:
    """Raises ValueError unless `image_size` is two positive ints or None, and `channels` is 1 to 4 or None."""
    if image_size is not None and (len(image_size) != 2 or min(image_size) < 1):
        raise ValueError(f"image_size={image_size} must be (height, width), both at least 1.")
    if channels is not None and channels not in _MODES:
        raise ValueError(f"channels={channels} must be 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGBA).")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Converts an image to a mode that `convert` turns into any of ours without clipping, warning or loss of alpha."""
    if image.mode == "F":
        raise BrokenImageError("its pixels are floats of unknown range")
    if image.mode.startswith("I"):  # 16 bits, which Pillow holds as 'I;16', or as 'I' where it was read from a PGM
        pixels = np.asarray(image)
        return Image.fromarray(_UPPER_EIGHT[pixels if pixels.dtype == np.uint16 else np.clip(pixels, 0, 65535)])
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode in ("1", "L", "RGB") and image.has_transparency_data:  # one colour stands for what is not there
        return image.convert("RGBA" if image.mode == "RGB" else "LA")
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA"):  # CMYK, YCbCr, LAB, ...
        return image.convert("RGB")
    return image


def pixels(image: Image.Image) -> np.ndarray:
    """Returns the pixels of an image of Pillow's, as `decode` takes them."""
    return np.asarray(_to_eight_bits(image))


def _open(encoded: bytes | np.ndarray) -> Image.Image:
    if isinstance(encoded, np.ndarray):
        return Image.fromarray(encoded.squeeze(-1) if encoded.shape[2:] == (1,) else encoded)
    image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    # Pillow warns above this limit and raises above twice it; we refuse both, as no data set has such pictures.
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise BrokenImageError(f"{image.width}x{image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS")
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _without_alpha(image: Image.Image, *, background: tuple[int, int, int]) -> Image.Image:
    """Shows an image on a background, and says so, once a process; opaque images keep their pixels."""
    if image.mode not in ("LA", "RGBA") or image.getchannel("A").getextrema()[0] == 255:
        return image
    _say_once(background)
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image.convert("RGBA"))


@functools.cache
def _say_once(background: tuple[int, int, int]) -> None:
    _log.warning("There are transparent images; they are shown on the colour %s (data.background).", background)


def _crop(image: Image.Image, *, width: int, height: int) -> Image.Image:
    """Crops the largest part around the centre with the aspect ratio `width` : `height`, to the pixel."""
    crop_width = max(1, min(image.width, round(image.height * width / height)))
    crop_height = max(1, min(image.height, round(image.width * height / width)))
    left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
    # ImageOps.fit would let the filter look at pixels outside the crop, unlike everyone who crops, then resizes.
    return image.crop((left, top, left + crop_width, top + crop_height))


def stored_shape(encoded: bytes | np.ndarray) -> tuple[int, int, int]:
    """Returns the (H, W, C) of an image as it is stored, with the C that keeps all its channels.

    Raises:
        ValueError: if it cannot be decoded.
    """
    try:
        image = _to_eight_bits(_open(encoded))
    except Exception as error:  # Pillow's plugins raise nearly anything when the bytes are wrong.
        raise ValueError(f"The first image cannot be decoded: {foreign_files.cause(error)}.") from error
    return image.height, image.width, len(image.getbands())


def decode(
    encoded: bytes | np.ndarray, *, image_shape: tuple[int, int, int], background: tuple[int, int, int] = WHITE
) -> np.ndarray:
    """Decodes one image and resizes it to `image_shape`.

    The image is turned as its EXIF orientation says, shown on the background where it is transparent and C has no
    alpha, converted to C channels as Pillow converts, cropped around its centre to the aspect ratio W : H and resized.
    The filter is Pillow's bicubic, which widens with the scale and so is antialiased. The usual FID code resizes with
    it, it keeps more detail than a box filter, and it rings less than Lanczos. An opaque image of the right size keeps
    its pixels.

    Args:
        encoded: the bytes of an image file, or uint8 or uint16 pixels [h, w] or [h, w, c].
        image_shape: (H, W, C), C in 1..4.
        background: (red, green, blue) in 0..255.

    Returns:
        uint8 [H, W, C].

    Raises:
        BrokenImageError: if it cannot be decoded, is truncated, or is a decompression bomb.
    """
    height, width, channels = image_shape
    try:
        image = _to_eight_bits(_open(encoded))
        if channels in (1, 3):
            image = _without_alpha(image, background=background)
        if image.mode != _MODES[channels]:
            image = image.convert(_MODES[channels])
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:  # its own message is an object's address
        raise BrokenImageError(f"it is not an image in a format we read ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow's plugins raise nearly anything when the bytes are wrong.
        raise BrokenImageError(f"{type(error).__name__}: {foreign_files.cause(error)}") from error
    if image.size != (width, height):
        image = _crop(image, width=width, height=height).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(image_shape)
