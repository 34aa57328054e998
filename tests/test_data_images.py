"""Images on disk: decoding one, and reading a tree of them from a folder or a tar."""

import io
import os
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.data import load
from ddpm_jax.data.decode import BrokenImageError, decode


def _encode(image, file_format="PNG", **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def _picture(seed, shape=(5, 7, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def _write_tree(root, names):
    """A PNG of 5x7 pixels at each name, its content given by its place in `names`; returns name -> pixels."""
    pictures = {name: _picture(i) for i, name in enumerate(names)}
    for name, picture in pictures.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(_encode(Image.fromarray(picture)))
    return pictures


def _load(path, split="train", memory_limit_gib=1.0, image_size=(5, 7), channels=3):
    return load(
        "image_folder",
        split=split,
        data_dir=str(path),
        image_size=image_size,
        channels=channels,
        memory_limit_gib=memory_limit_gib,
    )


def _tar(path, tree, prefix=""):
    """Packs the files of a folder in reverse order: the order of the archive must not matter."""
    mode = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}[path.suffix]
    with tarfile.open(path, mode) as tar:
        for file in sorted((f for f in tree.rglob("*") if f.is_file()), reverse=True):
            tar.add(file, arcname=f"{prefix}{file.relative_to(tree)}")
    return path


@pytest.mark.parametrize(
    ("size", "box", "image_size"),
    [((10, 6), (2, 0, 8, 6), (3, 3)), ((6, 10), (0, 2, 6, 8), (9, 9)), ((12, 14), (0, 4, 12, 10), (4, 8))],
)
def test_crop_is_central_and_resize_is_bicubic(size, box, image_size):
    image = Image.fromarray(_picture(0, (size[1], size[0], 3)))
    expected = image.crop(box).resize(image_size[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(_encode(image), image_shape=(*image_size, 3)), np.asarray(expected))


def test_resize_is_antialiased():
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    small = decode(_encode(Image.fromarray(checkers)), image_shape=(8, 8, 1))
    np.testing.assert_allclose(small, 127.5, atol=3)  # without antialiasing: 0 or 255


@pytest.mark.parametrize("file_format", ["PNG", "PPM"])  # Pillow reads the one as 'I;16', the other as 'I'
def test_16_bits_keep_their_upper_eight(file_format):
    pixels = np.array([[0, 128, 257, 1000], [30000, 32768, 65000, 65535]], np.uint16)
    image = decode(_encode(Image.fromarray(pixels), file_format), image_shape=(2, 4, 1))
    np.testing.assert_array_equal(image[..., 0], np.round(pixels / 65535 * 255))


def test_palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    encoded = _encode(image, transparency=bytes([0, 90]))
    np.testing.assert_array_equal(decode(encoded, image_shape=(1, 2, 4)), [[[10, 20, 30, 0], [200, 100, 50, 90]]])
    shown = decode(encoded, image_shape=(1, 2, 3))  # on white
    np.testing.assert_allclose(shown, [[[255] * 3, [255 - (255 - c) * 90 / 255 for c in (200, 100, 50)]]], atol=1)


def test_each_number_of_channels():
    rgba = np.array([[[200, 100, 50, 30], [0, 0, 0, 255]]], np.uint8)
    grey = [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50), 0]  # ITU-R 601
    encoded = _encode(Image.fromarray(rgba))
    np.testing.assert_array_equal(decode(encoded, image_shape=(1, 2, 4)), rgba)
    on_white = 255 - (255.0 - rgba[..., :3]) * rgba[..., 3:] / 255
    np.testing.assert_allclose(decode(encoded, image_shape=(1, 2, 3)), on_white, atol=1)
    np.testing.assert_array_equal(decode(encoded, image_shape=(1, 2, 2)), [[[grey[0], 30], [grey[1], 255]]])
    grey_on_white = on_white @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(decode(encoded, image_shape=(1, 2, 1))[..., 0], grey_on_white, atol=1.5)
    from_grey = decode(_encode(Image.fromarray(np.array([[7, 9]], np.uint8))), image_shape=(1, 2, 4))
    np.testing.assert_array_equal(from_grey, [[[7, 7, 7, 255], [9, 9, 9, 255]]])


def test_cmyk_jpeg_is_not_inverted():
    encoded = _encode(Image.new("RGB", (8, 8), (220, 40, 60)).convert("CMYK"), "JPEG", quality=100)
    image = decode(encoded, image_shape=(8, 8, 3))
    np.testing.assert_allclose(image, np.broadcast_to([220, 40, 60], (8, 8, 3)), atol=4)


def test_exif_orientation_turns_the_image():
    image = Image.fromarray(_picture(0, (16, 24, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    turned = decode(_encode(image, exif=exif), image_shape=(24, 16, 3))
    np.testing.assert_array_equal(turned, np.rot90(np.asarray(image), k=-1))


@pytest.mark.parametrize("size", [12, 20])  # above the limit, where Pillow warns, and above twice that, where it raises
def test_decompression_bombs_are_broken(monkeypatch, size):
    encoded = _encode(Image.new("L", (size, size)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BrokenImageError, match=r"(?i)pixels"):
            decode(encoded, image_shape=(4, 4, 1))


def test_what_we_do_not_read_is_broken():
    jpeg = _encode(Image.fromarray(_picture(0, (64, 64, 3))), "JPEG")
    floats = _encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    unlisted = _encode(Image.fromarray(_picture(0)), "PCX")  # Pillow reads it, but some such formats run programs
    for encoded in (jpeg[: len(jpeg) // 2], floats, unlisted, b"", b"not an image"):
        with pytest.raises(BrokenImageError):
            decode(encoded, image_shape=(4, 4, 3))


def test_channels_and_image_size_are_checked_first(tmp_path):
    with pytest.raises(ValueError, match=r"channels=5 must be 1 .*4"):
        _load(tmp_path / "missing", channels=5)
    with pytest.raises(ValueError, match=r"image_size=\(0, 7\) must be \(height, width\)"):
        _load(tmp_path / "missing", image_size=(0, 7))


@pytest.mark.parametrize("root", ["", "photos/"])
@pytest.mark.parametrize("packing", [None, "a.tar", "a.tar.gz", "a.tgz", "a.tar.xz"])
def test_a_folder_and_its_archives_read_the_same(tmp_path, packing, root):
    tree = tmp_path / "tree"
    names = ["train/dog/b.PNG", "train/cat/z/1.png", "test/dog/t.png", "train/dog/a.png", "train/ant/4.png"]
    pictures = _write_tree(tree, [root + name for name in names])
    (tree / root / "train" / "cat" / "notes.txt").write_text("no image")
    (tree / root / "train" / "cat" / "._1.png").write_text("no image")
    source = _load(_tar(tmp_path / packing, tree) if packing else tree)
    expected = ["train/ant/4.png", "train/cat/z/1.png", "train/dog/a.png", "train/dog/b.PNG"]
    np.testing.assert_array_equal(source.images, [pictures[root + name] for name in expected])
    assert source.class_names == ("ant", "cat", "dog")
    assert source.num_classes == 3
    np.testing.assert_array_equal(source.labels, [0, 1, 2, 2])
    assert source.labels.dtype == np.int32


@pytest.mark.parametrize("packing", [None, "a.tar", "a.tar.gz"])
def test_without_split_folders_all_is_the_training_set(tmp_path, packing):
    pictures = _write_tree(tmp_path / "tree", ["set/dog/1.png", "set/cat/1.png"])
    path = _tar(tmp_path / packing, tmp_path / "tree", "./") if packing else tmp_path / "tree"
    for split in ("train", "all"):
        source = _load(path, split=split)
        assert source.class_names == ("cat", "dog")
        np.testing.assert_array_equal(source.images, [pictures["set/cat/1.png"], pictures["set/dog/1.png"]])
    for split in ("test", "val"):
        with pytest.raises(ValueError, match=rf"has no split '{split}'; train with data.holdout=0.1 to keep a tenth"):
            _load(path, split=split)


def test_no_subfolders_no_labels(tmp_path):
    _write_tree(tmp_path, ["b.png", "a.png"])
    source = _load(tmp_path)
    assert (source.class_names, source.num_classes, source.labels.tolist()) == ((), 1, [0, 0])


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path):
    _write_tree(tmp_path, ["elsewhere/1.png", "tree/cat/1.png"])
    (tmp_path / "tree" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "tree" / "cat" / "up").symlink_to(tmp_path / "tree")
    os.mkfifo(tmp_path / "tree" / "cat" / "pipe.png")  # to open it would block for ever
    assert _load(tmp_path / "tree").class_names == ("cat", "dog")
    assert len(_load(tmp_path / "tree")) == 2


@pytest.mark.parametrize(("packing", "memory_limit_gib"), [("a.tar", 1.0), ("a.tar", 0.0), ("a.tar.gz", 1.0)])
def test_hostile_members_of_a_tar_are_ignored(tmp_path, caplog, packing, memory_limit_gib):
    encoded, secret = _encode(Image.fromarray(_picture(0))), tmp_path / "secret.png"
    secret.write_bytes(_encode(Image.fromarray(_picture(1))))
    with tarfile.open(tmp_path / packing, "w:gz" if packing.endswith("gz") else "w") as tar:
        for name in ("cat/good.png", "/abs.png", "../up.png", "cat/../../up.png", "cat/../ok.png"):
            member = tarfile.TarInfo(name)
            member.size = len(encoded)
            tar.addfile(member, io.BytesIO(encoded))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE):
            member = tarfile.TarInfo(f"cat/{kind.decode()}.png")
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
        member = tarfile.TarInfo("dog/good.png")
        member.size = len(encoded)
        tar.addfile(member, io.BytesIO(encoded))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"1 images beside its class folders .*ok.png"):  # inside, so it counts
        _load(tmp_path / packing)
    assert "ignored 8 members" in caplog.text
    assert "/abs.png" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("packing", ["a.tar", "a.tar.gz"])
def test_of_two_members_of_one_name_the_last_counts(tmp_path, packing):
    with tarfile.open(tmp_path / packing, "w:gz" if packing.endswith("gz") else "w") as tar:
        for seed in (0, 1):
            encoded = _encode(Image.fromarray(_picture(seed)))
            member = tarfile.TarInfo("a.png")
            member.size = len(encoded)
            tar.addfile(member, io.BytesIO(encoded))
    np.testing.assert_array_equal(_load(tmp_path / packing).images, _picture(1)[None])


def test_a_plain_tar_is_streamed_and_a_compressed_one_refused(tmp_path):
    pictures = _write_tree(tmp_path / "tree", ["b.png", "a.png"])
    source = _load(_tar(tmp_path / "a.tar", tmp_path / "tree"), memory_limit_gib=0.0)
    assert not source.in_memory
    np.testing.assert_array_equal(source.read([1, 0, 1])[0], [pictures[f"{name}.png"] for name in "bab"])
    with pytest.raises(ValueError, match=r"compressed .* 2 images .*memory_limit_gib=0: unpack it"):
        _load(_tar(tmp_path / "a.tar.xz", tmp_path / "tree"), memory_limit_gib=0.0)


def test_errors_name_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="needs data_dir"):
        _load("")
    with pytest.raises(FileNotFoundError, match="missing' does not exist"):
        _load(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty' holds no images"):
        _load(tmp_path / "empty")
    (tmp_path / "a.zip").write_bytes(b"PK\3\4" + bytes(2000))
    with pytest.raises(ValueError, match=r"a.zip' is not a folder, nor a whole and readable tar"):
        _load(tmp_path / "a.zip")
    _write_tree(tmp_path / "tree", ["train/1.png", "test/1.png"])
    with pytest.raises(ValueError, match="no split 'val'; it has test, train"):
        _load(tmp_path / "tree", split="val")
    _write_tree(tmp_path / "half", ["train/cat/1.png"])
    with pytest.raises(ValueError, match="no split 'test'; it has train"):  # and 'train' is not a root folder
        _load(tmp_path / "half", split="test")


@pytest.mark.parametrize("packing", ["a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_tar_cut_short_is_never_a_smaller_data_set(tmp_path, packing):
    _write_tree(tmp_path / "tree", [f"{i}.png" for i in range(20)])
    path = _tar(tmp_path / packing, tmp_path / "tree")
    whole = path.read_bytes()
    refused = 0
    for size in range(1, len(whole), 61):  # in a header, in a file, in the padding after it
        path.write_bytes(whole[:size])
        try:
            num_images = len(_load(path))
        except ValueError:
            refused += 1
        else:
            assert num_images == 20  # all that is missing is what follows the last file
    assert refused


@pytest.mark.parametrize("packing", ["a.tar.gz", "a.tar.xz"])
def test_a_damaged_archive_is_refused(tmp_path, packing):
    _write_tree(tmp_path / "tree", [f"{i}.png" for i in range(20)])
    path = _tar(tmp_path / packing, tmp_path / "tree")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + b"\xff" * 99 + whole[middle + 99 :])
    with pytest.raises(ValueError, match="nor a whole and readable tar"):
        _load(path)


def test_a_tar_with_a_wrong_header_is_never_a_smaller_data_set(tmp_path):
    _write_tree(tmp_path / "tree", ["1.png", "2.png", "3.png"])
    path = _tar(tmp_path / "a.tar", tmp_path / "tree")
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    whole = path.read_bytes()
    path.write_bytes(whole[:second] + b"x" * 512 + whole[second + 512 :])
    with pytest.raises(ValueError, match="may have been cut short"):
        _load(path)
