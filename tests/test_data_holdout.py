"""The share of a folder or tar of images that stays out of training and makes up the split 'test'."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import load

NAMES = [f"{kind}/{i:03}.png" for kind in ("cat", "dog") for i in range(50)]


def encode(number):
    file = io.BytesIO()
    Image.fromarray(np.full((1, 1), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def packed(tmp_path):
    """Packs the images of some names, one grey level each, as a folder or tar."""

    def pack(packing, names=NAMES, prefix=""):
        path = tmp_path / packing
        if packing == "folder":
            for name in names:
                file = path / prefix / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode(NAMES.index(name.removeprefix("test/").removeprefix("train/"))))
            return path
        with tarfile.open(path, "w:gz" if packing.endswith("gz") else "w") as tar:
            for name in names:
                member, encoded = tarfile.TarInfo(prefix + name), encode(NAMES.index(name))
                member.size = len(encoded)
                tar.addfile(member, io.BytesIO(encoded))
        return path

    return pack


def numbers(path, split, holdout, name="image_folder"):
    source = load(
        name, split=split, data_dir=str(path), image_size=(1, 1), channels=1, memory_limit_gib=1.0, holdout=holdout
    )
    assert source.class_names == ("cat", "dog")
    np.testing.assert_array_equal(source.labels, source.images[:, 0, 0, 0] >= 50)
    return source.images[:, 0, 0, 0].tolist()


def test_a_share_stays_out_of_training_and_is_the_test_split(packed):
    path = packed("folder")
    train, test, whole = (numbers(path, split, 0.1) for split in ("train", "test", "all"))
    assert test == [23, 47, 52, 91, 94, 99]  # for ever: it must not move into training
    assert sorted(train + test) == whole == numbers(path, "train", 0.0) == list(range(100))
    assert set(test) < set(numbers(path, "test", 0.3))
    with pytest.raises(ValueError, match="has no split 'val'"):
        numbers(path, "val", 0.1)


@pytest.mark.parametrize("packing", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("prefix", ["", "photos/"])
def test_it_is_the_same_share_wherever_the_images_lie(packed, packing, prefix):
    path, tar = packed("folder"), packed(packing, NAMES[::-1], prefix)
    for split in ("train", "test"):
        assert numbers(tar, split, 0.2) == numbers(path, split, 0.2)


def test_an_image_stays_where_it_is_when_others_come_and_go(packed):
    assert set(numbers(packed("b.tar", NAMES[::2]), "test", 0.3)) < set(numbers(packed("a.tar"), "test", 0.3))


def test_what_has_splits_has_no_holdout(packed):
    path = packed("folder", [f"{split}/{name}" for split in ("train", "test") for name in NAMES])
    with pytest.raises(ValueError, match=r"folder' has the splits test, train, so data.holdout=0.1 must be 0"):
        numbers(path, "train", 0.1)
    for name in ("digits", "cifar10"):
        with pytest.raises(ValueError, match=f"data.holdout=0.1 is for image_folder alone, and '{name}' has splits"):
            numbers("", "train", 0.1, name=name)


def test_a_share_of_none_or_of_all_is_refused(packed):
    path = packed("folder", NAMES[:3])
    with pytest.raises(ValueError, match=r"data.holdout=0.001 leaves none of the 3 images of .* for split 'test'"):
        load("image_folder", split="test", data_dir=str(path), holdout=0.001)
    with pytest.raises(ValueError, match=r"data.holdout=0.999 leaves none of the 3 images of .* for split 'train'"):
        load("image_folder", data_dir=str(path), holdout=0.999)
