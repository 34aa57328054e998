"""The figures that sample.py draws: their tables of images are read back from the pictures."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from ddpm_jax import data, images, load, sampling

SIDE = 8  # of a digit


STEPS = (10, 9, 8, 6, 5, 4, 2, 1, 0)  # eighths of ten
SETTINGS = "step 12, ema weights, seed 0"  # at the end of the titles
LAMBDAS = dict(corner="lambda", above=["source", *(f"{i / 10:g}" for i in range(11)), "source"])


def table(path, **labels):
    """The images of a picture with these labels, [rows, columns, 8, 8]: the inverse of `images.labelled_grid`."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    rows, columns = len(labels["left"]), len(labels["above"])
    black, white = (
        images.labelled_grid(np.full((rows * columns, SIDE, SIDE, 1), value, np.uint8), columns=columns, **labels)
        for value in (0, 255)
    )
    shown = (black != white)[..., 0]
    assert pixels.shape == shown.shape
    np.testing.assert_array_equal(pixels[~shown], white[~shown, 0])
    scale = round(np.sqrt(shown.sum() / (rows * columns * SIDE**2)))
    large = pixels[shown].reshape(rows, SIDE, scale, columns, SIDE, scale)
    small = large[:, :, :1, :, :, :1]
    np.testing.assert_array_equal(large, small.repeat(scale, 2).repeat(scale, 5))
    return small[:, :, 0, :, :, 0].swapaxes(1, 2)


@pytest.fixture(scope="module")
def figure(run, trained, tmp_path_factory):
    """`figure(mode, *arguments)` -> its path and what was printed."""

    def figure(mode, *arguments, devices=1):
        path = tmp_path_factory.mktemp(mode) / "figure.png"
        output = run(
            "sample.py", f"--workdir={trained}", f"--mode={mode}", f"--out={path}", *arguments, devices=devices
        )
        assert str(path) in output
        return path, output

    return figure


@pytest.fixture(scope="module")
def own(trained):
    """The first three images of seed 0, drawn by the library."""
    model = load(trained)
    drawn = model.experiment.sample(model.params, sampling.image_keys(0, np.arange(3)))
    return np.asarray(images.to_uint8(drawn))[..., 0]


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", image_size=(8, 8), channels=1, memory_limit_gib=1.0).images[..., 0]


def assert_same(shown, expected):
    """To float rounding, which may tip a pixel over to the next of 256 values."""
    assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_progressive_writes_a_strip_and_an_animation(figure, own, devices):
    path, _ = figure("progressive", "--num_samples=3", "--batch_size=2", devices=devices)
    above, left = [str(t) for t in range(10, 0, -1)], ["0", "1", "2"]
    strip = table(path, title=f"x_0 predicted from x_t: trained, {SETTINGS}", corner="t", above=above, left=left)
    assert strip.shape == (3, 10, 8, 8)  # a chain of ten steps: all of them
    assert_same(strip[:, -1], own)  # the prediction of the last step is the image
    assert np.abs(strip[:, 0].astype(int) - own).mean() > 5
    with Image.open(path.with_suffix(".webp")) as animation:
        assert animation.n_frames == 10
        assert np.asarray(animation).std() > 10  # not blank


@pytest.mark.slow
def test_shared_latents_writes_a_row_for_each_t(figure, own):
    path, _ = figure("shared_latents", "--num_samples=3")
    title, left = f"Images that share x_t: trained, {SETTINGS}", ["t = 10", "t = 8", "t = 5", "t = 2"]
    rows = table(path, title=title, above=["x_t", "x_0", "x_0", "x_0"], left=left)
    assert rows.shape == (4, 4, 8, 8)
    for row in rows:
        assert_same(row[1], own[0])  # the chain's own image
        assert len({image.tobytes() for image in row}) == 4
    spread = [np.abs(row[2:].astype(int) - row[1]).mean() for row in rows]
    assert spread[-1] < spread[0]  # they share more, the less noise is left


@pytest.mark.slow
def test_interpolate_writes_pairs_and_coarse_to_fine(figure, digits):
    path, _ = figure("interpolate", "--sources=3,17,20,5")
    title = f"Between two training images at t = 5: trained, {SETTINGS}"
    rows = table(path, title=title, left=["3, 17", "20, 5"], **LAMBDAS)
    assert rows.shape == (2, 13, 8, 8)
    np.testing.assert_array_equal(rows[:, [0, -1]], digits[[[3, 17], [20, 5]]])
    title, left = f"Between training images 3 and 17: trained, {SETTINGS}", [f"t = {t}" for t in STEPS]
    rows = table(path.with_stem("figure_coarse_to_fine"), title=title, left=left, **LAMBDAS)
    assert rows.shape == (9, 13, 8, 8)
    for row in rows:
        np.testing.assert_array_equal(row[[0, -1]], digits[[3, 17]])
    weight = np.arange(11)[:, None, None] / 10
    assert_same(rows[-1, 1:-1], np.round((1 - weight) * digits[3] + weight * digits[17]))  # by no steps
    assert np.abs(rows[0, 1].astype(int) - digits[3]).mean() > 5  # all is noise and drawn anew


@pytest.mark.slow
def test_interpolate_draws_its_sources_by_the_seed(figure, digits):
    pairs = []
    for seed in (0, 1):
        path, _ = figure("interpolate", "--num_samples=2", f"--seed={seed}")
        numbers = np.random.default_rng(seed).integers(len(digits), size=(2, 2))
        title = f"Between two training images at t = 5: trained, step 12, ema weights, seed {seed}"
        pairs.append(table(path, title=title, left=[f"{a}, {b}" for a, b in numbers], **LAMBDAS)[:, [0, -1]])
        np.testing.assert_array_equal(pairs[-1], digits[numbers])
    assert not np.array_equal(*pairs)
    known = {digit.tobytes() for digit in digits}
    assert all(image.tobytes() in known for image in np.concatenate(pairs).reshape(-1, 8, 8))


@pytest.mark.slow
def test_neighbours_are_the_nearest_digits(run, trained, tmp_path, digits):
    """In a copy of the work folder, as the samples are written there."""
    folder = shutil.copytree(trained, tmp_path / "run")
    arguments = (f"--workdir={folder}", "--mode=neighbours", "--num_samples=7", "--batch_size=4")
    output = run("sample.py", *arguments)
    assert "next: 0 of 7 (0.00%). Exact repeats among the samples: 0." in output
    with np.load(folder / "samples" / "step12_ema_seed0_7.npz") as arrays:
        drawn = arrays["arr_0"][..., 0]
    with np.load(folder / "samples" / "neighbours_step12_ema_seed0_7.npz") as arrays:
        distances, indices = arrays["distances"], arrays["indices"]
    expected = cdist(*(pixels.reshape(-1, 64).astype(np.float64) for pixels in (drawn, digits)))
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :8], rtol=1e-12)
    worst_first = np.argsort(distances[:, 0] / distances[:, 1])
    rows = table(
        folder / "samples" / "neighbours_step12_ema_seed0_7.png", left=[str(i) for i in worst_first],
        title=f"Samples and their nearest training images: run, {SETTINGS}",
        above=["sample", "nearest", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th"],
        below=[["", *(f"{distance:.1f}" for distance in distances[i])] for i in worst_first],
    )  # fmt: skip
    assert rows.shape == (7, 9, 8, 8)
    np.testing.assert_array_equal(rows[:, 0], drawn[worst_first])
    np.testing.assert_array_equal(rows[:, 1:], digits[indices[worst_first]])
    assert "there already" in run("sample.py", *arguments, "--crop=4")
    with np.load(folder / "samples" / "neighbours_step12_ema_seed0_7_crop4.npz") as arrays:
        assert np.all(arrays["distances"] < distances)


def test_planted_copies_are_counted_mirrored_ones_too(run, trained, tmp_path, digits):
    folder = shutil.copytree(trained, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["flip"] = True
    (folder / "config.json").write_text(json.dumps(config))
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8), dtype=np.uint8)
    samples = np.stack([*noise, digits[7], digits[9, :, ::-1], digits[7]])[..., None]
    (folder / "samples").mkdir()
    np.savez(folder / "samples" / "step12_ema_seed0_6.npz", samples)
    output = run("sample.py", f"--workdir={folder}", "--mode=neighbours", "--num_samples=6")
    assert "next: 3 of 6 (50.00%). Exact repeats among the samples: 1." in output
    with np.load(folder / "samples" / "neighbours_step12_ema_seed0_6.npz") as arrays:
        np.testing.assert_array_equal(arrays["indices"][3:, 0], [7, 9, 7])


@pytest.mark.slow
def test_inpaint_draws_the_masked_part_anew(figure, digits):
    path, _ = figure("inpaint", "--sources=3,17", "--mask=top", "--num_resamples=1")
    above = ["given", "known", *(f"drawn {j + 1}" for j in range(6))]
    title = f"Inpainted, top drawn anew: trained, {SETTINGS}"
    rows = table(path, title=title, left=["3", "17"], above=above)
    assert rows.shape == (2, 8, 8, 8)
    np.testing.assert_array_equal(rows[:, 0], digits[[3, 17]])
    np.testing.assert_array_equal(rows[:, 2:, 4:], np.broadcast_to(digits[[3, 17], None, 4:], (2, 6, 4, 8)))
    assert len({image.tobytes() for image in rows[:, 2:].reshape(-1, 8, 8)}) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=interpolate", "--sources=3,17,20"], "--sources=3,17,20 must be pairs of numbers in 0..1441"),
        (["--mode=interpolate", "--sources=3,1442"], "must be pairs of numbers in 0..1441"),
        (["--mode=neighbours", "--crop=9"], "--crop=9 must be at most 8"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence_before_anything_is_written(run, trained, tmp_path, arguments, message):
    output = run("sample.py", f"--workdir={trained}", f"--out={tmp_path / 'out' / 'figure.png'}", *arguments, code=1)
    assert message in output
    assert not (tmp_path / "out").exists()
    assert not (trained / "samples").exists()
