import jax
import numpy as np
import pytest
from PIL import Image

from ddpm_jax import data, editing
from ddpm_jax.editing import masks
from ddpm_jax.runs import image_tables, trained_model
from ddpm_jax.runs.experiment import make_experiment
from ddpm_jax.runs.trained_model import TrainedModel


@pytest.fixture
def draw(tiny_config, tmp_path, monkeypatch):
    """`draw(mode, ...)` -> the path of the picture, and its table [rows, columns, 8, 8, 1], of random weights."""
    experiment = make_experiment(tiny_config)
    leaves, structure = jax.tree.flatten(experiment.abstract_params)
    rng, tables = np.random.default_rng(0), []
    params = structure.unflatten([0.1 * rng.standard_normal(leaf.shape, np.float32) for leaf in leaves])
    model = TrainedModel(experiment, params, 12, trained_model.average_name(tiny_config))
    save = image_tables.save
    keep = lambda path, table, **labels: (tables.append(table), save(path, table, **labels))  # noqa: E731
    monkeypatch.setattr(image_tables, "save", keep)

    def draw(mode, *, num_images=None, seed=None, **settings):
        edit = editing.Edit(mode, **settings)
        return editing.draw(model, tmp_path, edit, num_images=num_images, seed=seed), tables[-1]

    return draw


@pytest.fixture(scope="module")
def digits():
    return {
        split: data.load("digits", split=split, image_size=(8, 8), channels=1, memory_limit_gib=1.0).images
        for split in ("train", "test")
    }


def test_inpainting_keeps_what_is_not_masked(draw, digits):
    path, table = draw("inpaint", sources=["3", "17"], split="test", mask="left", jump_length=2, num_resamples=2)
    assert path.name == "inpaint_step12_ema_seed0_2_test_sources3-17_left_jump2x2.png"
    with Image.open(path) as picture:
        assert picture.size[0] > 8 * 9
    assert table.shape == (2, 8, 8, 8, 1)
    given = digits["test"][[3, 17]]
    np.testing.assert_array_equal(table[:, 0], given)
    np.testing.assert_array_equal(np.unique(table[:, 1, :, :4]), [127])
    for variant in range(1, 8):
        np.testing.assert_array_equal(table[:, variant, :, 4:], given[:, :, 4:])
    drawn = {part.tobytes() for part in table[:, 2:, :, :4].reshape(-1, 8, 4)}
    assert len(drawn) == 12


def test_images_of_images_are_the_farther_the_larger_the_strength(draw, digits):
    distances = []
    for strength in (0.0, 0.3, 1.0):
        path, table = draw("image_to_image", num_images=3, seed=5, strength=strength)
        assert path.name == f"image_to_image_step12_ema_seed5_3_strength{strength:g}.png"
        assert table.shape == (3, 7, 8, 8, 1)
        assert {image.tobytes() for image in table[:, 0]} <= {digit.tobytes() for digit in digits["train"]}
        distances.append(np.abs(table[:, 1:].astype(int) - table[:, :1]).mean())
    assert distances[0] == 0.0
    assert 1.0 < distances[1] < distances[2]


def test_pictures_of_different_masks_in_one_file_are_different_files(tmp_path):
    names, pixels = set(), np.zeros((8, 8), np.uint8)
    for row in (1, 2, 2):
        pixels[row] = 255
        Image.fromarray(pixels).save(tmp_path / "mask.png")
        edit = editing.Edit("inpaint", mask=str(tmp_path / "mask.png"))
        names.add(edit.name(masks.drawn_anew(edit.mask, height=8, width=8)))
    assert len(names) == 2
    assert not any("/" in name for name in names)


def test_images_that_there_are_not_are_refused(draw):
    with pytest.raises(ValueError, match=r"--sources=3,1442 must be numbers in 0\.\.1441"):
        draw("inpaint", sources=["3", "1442"])
    with pytest.raises(FileNotFoundError, match="--mask=middle is neither a file nor one of left, right, top, bottom"):
        draw("inpaint", mask="middle")


@pytest.mark.parametrize(
    ("mask", "rows"),
    [
        ("left", ["##...", "##...", "##...", "##..."]),
        ("right", ["..###", "..###", "..###", "..###"]),
        ("top", ["#####", "#####", ".....", "....."]),
        ("bottom", [".....", ".....", "#####", "#####"]),
        ("center", [".....", ".###.", ".###.", "....."]),
    ],
)
def test_a_mask_has_a_name(mask, rows):
    marked = masks.drawn_anew(mask, height=4, width=5)
    assert marked.shape == (4, 5, 1)
    assert ["".join(".#"[pixel] for pixel in row) for row in marked[..., 0].astype(int)] == rows


def test_a_mask_may_be_a_picture(tmp_path):
    pixels = np.zeros((8, 10), np.uint8)
    pixels[2:4, 6:] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    marked = masks.drawn_anew(str(tmp_path / "mask.png"), height=8, width=10)
    np.testing.assert_array_equal(marked[..., 0], pixels > 0)
    Image.fromarray(0 * pixels).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="marks nothing: what is to be drawn anew must be white"):
        masks.drawn_anew(str(tmp_path / "black.png"), height=8, width=10)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be decoded: it is not an image"):
        masks.drawn_anew(str(tmp_path / "text.png"), height=8, width=10)
