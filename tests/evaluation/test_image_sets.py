import numpy as np
import pytest
from PIL import Image

from configs import digits
from ddpm_jax import data
from ddpm_jax.evaluation import image_sets
from ddpm_jax.runs import trainer


def pixels(seed=0, count=5):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 6, 3)).astype(np.uint8)


def test_an_npz_a_folder_and_a_data_set_are_images_alike(tmp_path):
    images = pixels()
    np.savez(tmp_path / "some.npz", arr_0=images)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i}.png")
    for name in ("some.npz", "folder"):
        found = image_sets.open_set(str(tmp_path / name), image_shape=None)
        assert (len(found), found.shape, found.metadata["images"]) == (5, (5, 8, 6, 3), name)
        np.testing.assert_array_equal(found.read(np.array([4, 0])), images[[4, 0]])
    digits = image_sets.open_set("digits:test", image_shape=None)
    source = data.load("digits", split="test", image_size=(8, 8), channels=1, memory_limit_gib=1.0)
    np.testing.assert_array_equal(digits.read(np.arange(len(source))), source.images)
    assert digits.metadata["images"] == "digits:test"
    assert image_sets.open_set("digits", image_shape=None).metadata["images"] == "digits:train"
    assert image_sets.open_set("digits", image_shape=(4, 4, 3)).shape[1:] == (4, 4, 3)


def test_a_split_is_named_after_its_data_set_or_folder(tmp_path):
    config = digits.get_config()
    source, name = image_sets.named_split(trainer.checked_experiment(config, num_devices=1), "test")
    assert (len(source), name) == (355, "digits:test")
    (tmp_path / "pets").mkdir()
    for i, image in enumerate(pixels()):
        Image.fromarray(image).save(tmp_path / "pets" / f"{i}.png")
    config.data.update(name="image_folder", data_dir=str(tmp_path / "pets"))
    source, name = image_sets.named_split(trainer.checked_experiment(config, num_devices=1))
    assert (len(source), name) == (5, "pets:train")


def test_other_images_are_another_set(tmp_path):
    one = image_sets.from_array(pixels(), {"images": "a"}).metadata
    changed = pixels()
    changed[3, 2, 1, 0] ^= 1
    others = [changed, pixels()[:4], pixels()[::-1], pixels().reshape(5, 6, 8, 3)]
    assert all(image_sets.from_array(other, {"images": "a"}).metadata["sha256"] != one["sha256"] for other in others)
    assert image_sets.from_array(pixels().copy(), {"images": "a"}).metadata == one


def test_labels_tell_sets_apart_where_they_matter():
    source = data.load("digits", image_size=(8, 8), channels=1, memory_limit_gib=1.0)
    other = data.Source(source.image_shape, source.class_names, source.broken, source.images, source.labels[::-1])
    with_labels = [image_sets.from_source(each, "d", labels=True).metadata for each in (source, other)]
    assert with_labels[0] != with_labels[1]
    assert image_sets.from_source(source, "d").metadata == image_sets.from_source(other, "d").metadata


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"must hold uint8 \[N, H, W, C\], and has float32 \[2, 8, 8, 3\]"),
        (np.zeros((8, 3), np.uint8), r"has uint8 \[8, 3\]"),
        (np.array([{"a": 1}], dtype=object), "no .npz with images"),
    ],
)
def test_an_npz_without_images_is_refused(tmp_path, array, message):
    np.savez(tmp_path / "some.npz", arr_0=array)
    with pytest.raises(ValueError, match=message):
        image_sets.open_set(str(tmp_path / "some.npz"), image_shape=None)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        image_sets.open_set(str(tmp_path / "none.npz"), image_shape=None)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ValueError, match="no .npz with images"):
        image_sets.open_set(str(tmp_path / "text.npz"), image_shape=None)
