"""What tells one set of images from another, when a run continues and between processes."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax import data


def encode(seed):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (3, 2), np.uint8)).save(file, "PNG")
    return file.getvalue()


def write(folder, num_images=150, offset=0):
    for i in range(num_images):
        path = folder / "ab"[i % 2] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(i + offset))
    return folder


def fingerprint(path, *, streamed=False, **options):
    source = data.load("image_folder", data_dir=str(path), memory_limit_gib=0.0 if streamed else 1.0, **options)
    return source.fingerprint()


def changed(old, new):
    return [difference.partition(":")[0] for difference in data.differences(old, new)]


def test_it_is_a_small_json_value_of_the_images_alone(tmp_path):
    folder = write(tmp_path / "here")
    expected = fingerprint(folder)
    assert json.loads(json.dumps(expected)) == expected
    assert len(json.dumps(expected)) < 400
    assert fingerprint(write(tmp_path / "there")) == expected
    assert fingerprint(folder, streamed=True) == expected
    assert fingerprint(folder, image_size=(1, 1), channels=3) == expected
    for packing in ("a.tar", "a.tar.gz"):
        with tarfile.open(tmp_path / packing, "w:gz" if packing.endswith("gz") else "w") as tar:
            tar.add(folder, arcname="root")
        assert fingerprint(tmp_path / packing) == expected
    assert fingerprint(tmp_path / "a.tar", streamed=True) == expected
    assert data.differences(expected, expected) == []


def test_what_differs_is_named(tmp_path):
    old = fingerprint(write(tmp_path / "a"))
    half = fingerprint(write(tmp_path / "half", 70))
    assert "number of images: 150 -> 70" in data.differences(old, half)
    assert changed(old, fingerprint(write(tmp_path / "others", offset=1))) == ["contents"]
    moved = write(tmp_path / "moved")
    (moved / "a" / "140.png").rename(moved / "a" / "140b.png")
    assert changed(old, fingerprint(moved)) == ["names of the images"]
    (moved / "a" / "140b.png").rename(moved / "a" / "140.png")
    (moved / "b").rename(moved / "c")
    assert changed(old, fingerprint(moved)) == ["names of the classes", "names of the images"]
    assert changed(old, fingerprint(tmp_path / "a", holdout=0.5))[0] == "number of images"
    assert data.differences(old, {}) == [f"{name}: {value} -> None" for name, value in old.items()]


def test_a_broken_image_changes_nothing(tmp_path):
    folder = write(tmp_path)
    (folder / "a" / "000.png").write_bytes(b"broken")
    shape = dict(image_size=(3, 2), channels=1)
    assert fingerprint(folder, **shape) == fingerprint(folder, streamed=True, **shape)


def test_data_sets_without_files_have_one_too():
    digits, again = (data.load("digits", memory_limit_gib=limit).fingerprint() for limit in (0.0, 1.0))
    assert digits == again
    assert "number of images: 1442 -> 355" in data.differences(digits, data.load("digits", split="test").fingerprint())


def test_it_stays_the_same_for_ever():
    """Runs that were started before compare with it."""
    assert data.load("digits").fingerprint() == {
        "number of images": 1442,
        "number of classes": 10,
        "names of the classes": "4d1d22f6ded2d122",
        "names of the images": "e3b0c44298fc1c14",
        "contents": "b4efa88c7ad7011a",
    }


def test_a_large_set_is_looked_into_at_few_places(tmp_path, monkeypatch):
    source = data.load("image_folder", data_dir=str(write(tmp_path)), memory_limit_gib=0.0)
    read, really_open = [], open
    monkeypatch.setattr("builtins.open", lambda path, *mode: read.append(path) or really_open(path, *mode))
    source.fingerprint()
    assert len(read) == 64
    assert (read[0][-7:], read[-1][-7:]) == ("000.png", "149.png")


@pytest.mark.parametrize("position", [0, 149])
def test_the_first_and_the_last_are_looked_at(tmp_path, position):
    old = fingerprint(write(tmp_path))
    (tmp_path / "ab"[position % 2] / f"{position:03}.png").write_bytes(encode(1000))
    assert changed(old, fingerprint(tmp_path)) == ["contents"]
