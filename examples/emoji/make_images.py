"""Makes a data set of colour pictures from a font: the emoji of Noto Color Emoji, a folder a class.

    apt install fonts-noto-color-emoji
    python examples/emoji/make_images.py [--font=FILE] [--out=runs/emoji-images]

The font, under the SIL Open Font License, holds bitmaps of 136x128 pixels: 3,860 emoji, and parts of some. Each emoji
is put on a white square and written as OUT/CLASS/<its code points>.png. Then train:

    ddpm-train --config=emoji --workdir=runs/emoji
"""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from absl import app, flags
from fontTools.ttLib import TTFont, TTLibError
from PIL import Image
from tqdm import tqdm

_FONT = flags.DEFINE_string("font", "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf", "The font file.")
_OUT = flags.DEFINE_string("out", "runs/emoji-images", "The folder to write.")

_TONES, _GENDERS = range(0x1F3FB, 0x1F400), (0x2640, 0x2642)
_PRIVATE_USE = 0xF0000
# The first class in which one of an emoji's code points lies; else it is of the symbols.
_CLASSES = {
    "flags": [range(0x1F1E6, 0x1F200), (0x1F38C, 0x1F3C1, 0x1F3F3, 0x1F3F4, 0x1F6A9)],
    "people": [
        _TONES, _GENDERS, range(0x1F440, 0x1F452), range(0x1F464, 0x1F484), range(0x1F485, 0x1F488),
        range(0x1F58E, 0x1F597), range(0x1F645, 0x1F650), range(0x1F90C, 0x1F910), range(0x1F918, 0x1F920),
        range(0x1F930, 0x1F93A), range(0x1F9B5, 0x1F9BA), range(0x1F9CD, 0x1F9E0), range(0x1FAC2, 0x1FAC6),
        range(0x1FAF0, 0x1FB00), (0x1F385, 0x1F46A, 0x1F4AA, 0x1F574, 0x1F57A, 0x1F590, 0x1F926, 0x1F977, 0x1F9D1),
        (0x261D, 0x26F7, 0x26F9, 0x270A, 0x270B, 0x270C, 0x270D, 0x1F3C2, 0x1F3C3, 0x1F3C4, 0x1F3C7, 0x1F3CA),
    ],
    "faces": [
        range(0x1F600, 0x1F645), range(0x1F479, 0x1F481), range(0x1F910, 0x1F930), range(0x1F970, 0x1F97B),
        range(0x1FAE0, 0x1FAF0), (0x2639, 0x263A, 0x1F9D0, 0x1F916, 0x1F31A, 0x1F31B, 0x1F31C, 0x1F31D, 0x1F31E),
    ],
    "animals": [
        range(0x1F400, 0x1F440), range(0x1F980, 0x1F9AF), range(0x1F330, 0x1F345), range(0x1FAB0, 0x1FABE),
        (0x1F490, 0x1F43E, 0x1F577, 0x1F54A, 0x2618, 0x1FACE, 0x1FACF),
    ],
    "food": [
        range(0x1F345, 0x1F380), range(0x1F950, 0x1F970), range(0x1F9C0, 0x1F9CC), range(0x1FAD0, 0x1FADC), (0x2615,),
    ],
    "things": [
        range(0x1F380, 0x1F3F3), range(0x1F3F5, 0x1F3FB), range(0x1F452, 0x1F464), range(0x1F484, 0x1F493),
        range(0x1F4A0, 0x1F500), range(0x1F507, 0x1F53B), range(0x1F56F, 0x1F5FF), range(0x1F680, 0x1F6B0),
        range(0x1F6B2, 0x1F6BA), range(0x1F6CB, 0x1F700), range(0x1F93A, 0x1F950), range(0x1F97C, 0x1F980),
        range(0x1F9AF, 0x1F9B5), range(0x1F9BA, 0x1F9C0), range(0x1F9E0, 0x1FA00), range(0x1FA70, 0x1FAB0),
        range(0x2328, 0x2329), range(0x23E9, 0x23F4), range(0x26BD, 0x26BF), range(0x1F300, 0x1F321), (0x260E, 0x2702),
    ],
}  # fmt: skip


def class_of(code_points: tuple[int, ...]) -> str:
    """Names the class of an emoji."""
    for name, sets in _CLASSES.items():
        if any(point in points for point in code_points for points in sets):
            return name
    return "symbols"


def code_points_of_glyphs(font: TTFont) -> dict[str, tuple[int, ...]]:
    """Returns the code points that each glyph stands for: one, or the several of a ligature."""
    points = {name: (point,) for point, name in font.getBestCmap().items()}
    lookups = font["GSUB"].table.LookupList.Lookup
    tables = itertools.chain.from_iterable(lookup.SubTable for lookup in lookups)
    for table in (getattr(table, "ExtSubTable", table) for table in tables):
        for first, ligatures in getattr(table, "ligatures", {}).items():
            for ligature in ligatures:
                parts = [first, *ligature.Component]
                if all(part in points for part in parts):
                    points.setdefault(ligature.LigGlyph, sum((points[part] for part in parts), ()))
    return points


def pictures(font: TTFont) -> Iterator[tuple[tuple[int, ...], Image.Image]]:
    """Yields the code points of each emoji and its picture, RGBA; what only makes up others is left out."""
    points = code_points_of_glyphs(font)
    parts = {(point,) for point in (*range(0x100), *range(0x1F1E6, 0x1F200), *_TONES)}  # digits, letters, skins
    for name, bitmap in font["CBDT"].strikeData[0].items():
        if name in points and points[name] not in parts and max(points[name]) < _PRIVATE_USE:
            yield points[name], Image.open(io.BytesIO(bitmap.imageData)).convert("RGBA")


def main(_: list[str]) -> None:
    """Writes the pictures of the font that the flags name."""
    try:
        font = TTFont(_FONT.value)
    except (OSError, TTLibError) as error:
        raise SystemExit(
            f"There is no font {_FONT.value} ({error}). Install Noto Color Emoji (on Debian: apt install "
            "fonts-noto-color-emoji), or say where it is: --font=FILE."
        ) from None
    out = Path(_OUT.value)
    for code_points, picture in tqdm(list(pictures(font)), unit="image"):
        square = Image.new("RGBA", (max(picture.size),) * 2, "white")
        square.alpha_composite(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
        path = out / class_of(code_points) / ("-".join(f"{point:x}" for point in code_points) + ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        square.convert("RGB").save(path)
    print("\n".join(f"{folder.name}: {len(list(folder.iterdir()))}" for folder in sorted(out.iterdir())))


if __name__ == "__main__":
    app.run(main)
