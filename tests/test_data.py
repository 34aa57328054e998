"""Data sets: their order, their batches, and where they come from."""

import io
import itertools
import json
import logging
import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import time

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from ddpm_jax.data import batch_indices, batches, load, native_shape, order
from ddpm_jax.data.source import BrokenImages

ROOT = pathlib.Path(__file__).parents[1]


def _encode(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _write_folder(root, *, size, broken=()):
    """`size` pictures of 3x2 grey pixels in two classes, those in `broken` without their second half."""
    pixels = np.random.default_rng(0).integers(0, 256, (size, 3, 2, 1), np.uint8)
    for i in range(size):
        folder = root / ("cat" if i < size // 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        encoded = _encode(pixels[i, ..., 0])
        (folder / f"{i:04}.png").write_bytes(encoded[: len(encoded) // 2] if i in broken else encoded)
    return pixels


def _load_folder(root, *, streamed=False, channels=1):
    limit = 0.0 if streamed else 1.0
    source = load("image_folder", data_dir=str(root), image_size=(3, 2), channels=channels, memory_limit_gib=limit)
    assert source.in_memory != streamed
    return source


def _load_tfds(name, data_dir, *, split="train"):
    return load(name, split=split, data_dir=str(data_dir), image_size=(3, 2), channels=3, memory_limit_gib=1.0)


def _run_without_tensorflow(code, *args):
    """Runs code where TensorFlow cannot be found, installed or not, and warnings are errors."""
    hide = """
        import importlib.util, sys
        class Hide:
            def __init__(self, finder):
                self.finder = finder
            def find_spec(self, name, path=None, target=None):
                return None if name.split(".")[0] == "tensorflow" else self.finder.find_spec(name, path, target)
        sys.meta_path[:] = [Hide(finder) for finder in sys.meta_path]
        assert importlib.util.find_spec("tensorflow") is None
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(hide) + textwrap.dedent(code), *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@hypothesis.given(n=st.integers(1, 40), batch=st.integers(1, 90), seed=st.integers(0, 2**40), step=st.integers(0, 50))
def test_the_batch_is_a_slice_of_the_endless_sequence(n, batch, seed, step):
    start, stop = step * batch, (step + 1) * batch
    epochs = range(start // n, (stop - 1) // n + 1)
    permutations = [np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n) for epoch in epochs]
    sequence = np.concatenate(permutations)[start % n :][:batch]
    indices = batch_indices(n, seed=seed, step=step, batch_size=batch)
    np.testing.assert_array_equal(indices, sequence)
    assert indices.dtype == np.int64
    assert indices.shape == (batch,)


@hypothesis.given(n=st.integers(1, 40), batch=st.integers(1, 90), seed=st.integers(0, 2**40))
def test_every_epoch_visits_every_image_once(n, batch, seed):
    steps = -(-3 * n // batch)
    sequence = np.concatenate([batch_indices(n, seed=seed, step=s, batch_size=batch) for s in range(steps)])[: 3 * n]
    np.testing.assert_array_equal(np.sort(sequence.reshape(3, n)), np.tile(np.arange(n), (3, 1)))


def test_seeds_and_epochs_have_orders_of_their_own():
    orders = [batch_indices(100, seed=seed, step=step, batch_size=100).tolist() for seed in (0, 1) for step in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_a_batch_can_be_changed_without_changing_the_next():
    first = batch_indices(7, seed=0, step=0, batch_size=7)
    kept = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(batch_indices(7, seed=0, step=0, batch_size=7), kept)


def test_far_steps_of_a_large_data_set_take_one_permutation(monkeypatch):
    drawn, generator = [], np.random.PCG64
    monkeypatch.setattr(np.random, "PCG64", lambda key: drawn.append(key) or generator(key))
    order._permutation.cache_clear()
    for step in range(10**9, 10**9 + 101):
        batch_indices(3_000_000, seed=0, step=step, batch_size=128)
    assert drawn == [[0, 10**9 * 128 // 3_000_000]]  # of that epoch alone, and once: it takes about 0.1 s


@pytest.mark.parametrize("streamed", [False, True])
def test_batches_start_anywhere_and_split_by_rows(tmp_path, streamed):
    pixels = _write_folder(tmp_path, size=11)
    source = _load_folder(tmp_path, streamed=streamed)
    whole = list(batches(source, seed=3, batch_size=8, start_step=0, num_steps=5))
    assert len(whole) == 5
    for step, batch in enumerate(whole):
        indices = batch_indices(11, seed=3, step=step, batch_size=8)
        np.testing.assert_array_equal(batch.images, pixels[indices])
        np.testing.assert_array_equal(batch.labels, indices >= 5)
        assert (batch.images.dtype, batch.labels.dtype) == (np.uint8, np.int32)
    for start in (2, 4):
        (late,) = batches(source, seed=3, batch_size=8, start_step=start, num_steps=1)
        np.testing.assert_array_equal(late.images, whole[start].images)
    assert not list(batches(source, seed=3, batch_size=8, start_step=2, num_steps=0))
    halves = [
        list(batches(source, seed=3, batch_size=8, start_step=1, num_steps=2, rows=rows))
        for rows in (slice(0, 3), slice(3, 8))
    ]
    for step, parts in zip((1, 2), zip(*halves, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole[step].images)
        np.testing.assert_array_equal(np.concatenate([part.labels for part in parts]), whole[step].labels)


def test_streamed_and_in_memory_are_the_same_to_the_bit(tmp_path):
    _write_folder(tmp_path, size=7)
    sources = [_load_folder(tmp_path, streamed=streamed, channels=3) for streamed in (False, True)]
    streams = [batches(source, seed=0, batch_size=17, start_step=5) for source in sources]  # without end, B > 2 N
    for in_memory, streamed in itertools.islice(zip(*streams, strict=True), 6):
        np.testing.assert_array_equal(in_memory.images, streamed.images)
        np.testing.assert_array_equal(in_memory.labels, streamed.labels)
    for stream in streams:
        stream.close()


def test_closing_the_iterator_stops_its_threads(tmp_path):
    _write_folder(tmp_path, size=7)
    before = set(threading.enumerate())
    stream = batches(_load_folder(tmp_path, streamed=True), seed=0, batch_size=4, start_step=0)
    next(stream)
    assert set(threading.enumerate()) - before
    stream.close()
    deadline = time.monotonic() + 10
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before


def test_read_keeps_the_order_of_the_indices(tmp_path):
    pixels = _write_folder(tmp_path, size=6)
    for streamed in (False, True):
        source = _load_folder(tmp_path, streamed=streamed)
        images, labels = source.read([4, 0, 4])
        np.testing.assert_array_equal(images, pixels[[4, 0, 4]])
        np.testing.assert_array_equal(labels, [1, 0, 1])
        assert (len(source), source.image_shape, labels.dtype) == (6, (3, 2, 1), np.int32)
        for index in (-1, 6):
            with pytest.raises(IndexError, match=r"must lie in 0..5"):
                source.read([index])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed=-1 must be 0 or more"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"start_step": -1}, "steps are counted from 0"),
        ({"num_steps": -1}, "num_steps=-1 must be 0 or more"),
        ({"rows": slice(4, 9)}, "selects nothing from a batch of 4"),
    ],
)
def test_arguments_of_batches_are_checked_at_once(tmp_path, change, message):
    _write_folder(tmp_path, size=2)
    for streamed in (False, True):
        source = _load_folder(tmp_path, streamed=streamed)
        with pytest.raises(ValueError, match=message):
            batches(source, **{"seed": 0, "batch_size": 4, "start_step": 0, **change})


def test_broken_images_are_left_out_or_replaced(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    pixels = _write_folder(tmp_path, size=200, broken=(17, 199))
    in_memory = _load_folder(tmp_path)
    np.testing.assert_array_equal(in_memory.images, np.delete(pixels, (17, 199), axis=0))
    np.testing.assert_array_equal(in_memory.labels, [0] * 99 + [1] * 99)
    assert len(in_memory.broken) == 2
    assert "0017.png: it is not an image in a format we read" in caplog.text
    assert "0199.png" in caplog.text
    caplog.clear()
    streamed = _load_folder(tmp_path, streamed=True)
    images, labels = streamed.read([199, 16, 17, 18, 17])
    np.testing.assert_array_equal(images, pixels[[0, 16, 18, 18, 18]])
    np.testing.assert_array_equal(labels, [0] * 5)
    assert len(streamed.broken) == 2
    assert caplog.text.count("0017.png") == 1


def test_the_memory_limit_changes_no_batch_where_images_are_broken(tmp_path):
    _write_folder(tmp_path, size=400, broken=(17, 18, 399))
    sources = [_load_folder(tmp_path, streamed=streamed) for streamed in (False, True)]
    assert [len(source) for source in sources] == [400, 400]
    streams = [batches(source, seed=0, batch_size=150, start_step=1, num_steps=4) for source in sources]
    for in_memory, streamed in zip(*streams, strict=True):
        np.testing.assert_array_equal(in_memory.images, streamed.images)
        np.testing.assert_array_equal(in_memory.labels, streamed.labels)
    for index in (17, 398, 399):
        for one, other in zip(*(source.read_one(index) for source in sources), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(IndexError, match="must lie in 0..399"):
        sources[0].read([400])


def test_a_broken_image_counts_once(caplog):
    broken = BrokenImages(200)
    for index in (4, 4, 5, 4):
        broken.add(index, name=f"image {index}", reason=ValueError("cut short"))
    assert len(broken) == 2
    assert caplog.text.count("image 4: cut short") == 1
    with pytest.raises(ValueError, match="3 of the 200 images are broken, more than 1%: image 4, image 5, image 6;"):
        broken.add(6, name="image 6", reason=ValueError("cut short"))


def test_more_than_one_percent_broken_stops(tmp_path):
    _write_folder(tmp_path, size=199, broken=(5, 60))
    message = r"2 of the 199 images are broken, more than 1%: .*0005.png, .*0060.png;"
    with pytest.raises(ValueError, match=message):
        _load_folder(tmp_path)
    with pytest.raises(ValueError, match="2 of the 199 images are broken"):
        list(batches(_load_folder(tmp_path, streamed=True), seed=0, batch_size=199, start_step=0, num_steps=1))


def test_a_file_that_cannot_be_read_is_no_broken_image(tmp_path):
    _write_folder(tmp_path, size=3)
    source = _load_folder(tmp_path, streamed=True)
    (tmp_path / "cat" / "0000.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0000.png"):  # to go on with another image would be another run
        source.read([0])


def test_a_reading_thread_that_dies_is_reported_with_its_cause(tmp_path):
    _write_folder(tmp_path, size=7)
    source = _load_folder(tmp_path, streamed=True)
    stream = batches(source, seed=0, batch_size=4, start_step=0)
    next(stream)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        list(itertools.islice(stream, 100))  # some are read ahead


@pytest.mark.parametrize("memory_limit_gib", [0.0, 1.0])
def test_what_is_not_given_is_as_in_the_first_image(tmp_path, memory_limit_gib):
    pixels = _write_folder(tmp_path, size=6)
    assert native_shape("image_folder", data_dir=str(tmp_path)) == (3, 2, 1)
    place = dict(data_dir=str(tmp_path), memory_limit_gib=memory_limit_gib)
    np.testing.assert_array_equal(load("image_folder", **place).read([0, 5])[0], pixels[[0, 5]])
    assert load("image_folder", channels=3, **place).image_shape == (3, 2, 3)
    assert load("image_folder", image_size=(4, 4), **place).image_shape == (4, 4, 1)


def test_defaults_are_the_training_images_in_memory_from_step_0():
    source = load("digits")
    assert (len(source), source.image_shape, source.in_memory) == (1442, (8, 8, 1), True)
    first = next(batches(source, batch_size=4))
    np.testing.assert_array_equal(
        first.images, source.read(batch_indices(1442, seed=0, step=0, batch_size=4))[0]
    )  # fmt: skip


def test_digits_are_those_of_scikit_learn():
    source = load("digits", split="all", image_size=(8, 8), channels=1, memory_limit_gib=1.0)
    expected = load_digits()
    np.testing.assert_array_equal(np.round(source.images[..., 0] * (16 / 255)), expected.images)
    assert (source.images.min(), source.images.max(), source.images.shape) == (0, 255, (1797, 8, 8, 1))
    np.testing.assert_array_equal(source.labels, expected.target)
    assert (source.num_classes, source.class_names) == (10, tuple("0123456789"))
    larger = load("digits", split="all", image_size=(16, 12), channels=3, memory_limit_gib=0.0)
    image = Image.fromarray(source.images[5, :, 1:7, 0]).resize((12, 16), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(larger.read([5])[0][0], np.stack([image] * 3, axis=-1))
    with pytest.raises(ValueError, match="the splits train, test, all, and no 'val'"):
        load("digits", split="val", image_size=(8, 8), channels=1, memory_limit_gib=1.0)


def test_every_fifth_digit_of_a_class_is_held_out():
    options = dict(image_size=(8, 8), channels=1, memory_limit_gib=1.0)
    whole, train, test = (load("digits", split=split, **options) for split in ("all", "train", "test"))
    assert (len(whole), len(train), len(test)) == (1797, 1442, 355)
    held_out = np.zeros(1797, bool)
    for digit in range(10):
        held_out[np.flatnonzero(whole.labels == digit)[4::5]] = True
    for split, rows in ((test, held_out), (train, ~held_out)):
        np.testing.assert_array_equal(split.images, whole.images[rows])
        np.testing.assert_array_equal(split.labels, whole.labels[rows])
    assert set(np.bincount(test.labels)) <= {34, 35, 36}


def _field(number, content):
    """A length-delimited field of a protocol buffer."""
    size, varint = len(content), b""
    while size > 127:
        size, varint = size >> 7, varint + bytes([size & 127 | 128])
    return bytes([number << 3 | 2]) + varint + bytes([size]) + content


def _example(*, image, label):
    """A serialized tf.train.Example: features { feature: map of name -> bytes_list or int64_list }."""
    features = {"image": _field(1, _field(1, image)), "label": _field(3, _field(1, bytes([label])))}
    return _field(1, b"".join(_field(1, _field(1, k.encode()) + _field(2, v)) for k, v in features.items()))


def _write_tfds(data_dir, *, file_format="array_record", broken=()):
    """Lays out what `download_and_prepare` of TFDS 4.9.10 does: 'toy', train of 150 in two shards, test of 2."""
    from array_record.python.array_record_module import ArrayRecordWriter

    pixels = np.random.default_rng(0).integers(0, 256, (150, 3, 2, 3), np.uint8)
    folder = data_dir / "toy" / "1.0.0"
    folder.mkdir(parents=True)
    for shard, size in {"train|0|2": 100, "train|1|2": 50, "test|0|1": 2}.items():
        split, number, count = shard.split("|")
        path = folder / f"toy-{split}.{file_format}-{int(number):05}-of-{int(count):05}"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for i in range(100 * int(number), 100 * int(number) + size):
            writer.write(_example(image=b"broken" if i in broken else _encode(pixels[i]), label=i % 3))
        writer.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = [
        {"name": "train", "shardLengths": ["100", "50"], "numBytes": "1", "filepathTemplate": template},
        {"name": "test", "shardLengths": ["2"], "numBytes": "1", "filepathTemplate": template},
    ]
    info = {"name": "toy", "version": "1.0.0", "fileFormat": file_format, "splits": splits}
    core = "tensorflow_datasets.core.features"
    image = {"image": {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", "3"]}}}
    features = {
        "image": {**image, "pythonClassName": f"{core}.image_feature.Image"},
        "label": {
            "classLabel": {"numClasses": "3"},
            "pythonClassName": f"{core}.class_label_feature.ClassLabel",
        },
    }
    tree = {"featuresDict": {"features": features}, "pythonClassName": f"{core}.features_dict.FeaturesDict"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(tree))
    (folder / "label.labels.txt").write_text("cat\nant\ndog\n")
    return pixels


def test_tfds_is_read_without_tensorflow(tmp_path):
    pixels = _write_tfds(tmp_path, broken=(149,))
    code = """
        import numpy as np
        from ddpm_jax.data import batches, load
        def read(data_dir, split, limit):
            size = {"image_size": (3, 2), "channels": 3, "memory_limit_gib": limit}
            return load("toy", split=split, data_dir=data_dir, **size)
        data_dir, out = sys.argv[1:]
        all_, streamed = read(data_dir, "train", 1.0), read(data_dir, "train", 0.0)
        (batch,) = batches(streamed, seed=0, batch_size=70, start_step=1, num_steps=1)
        part = read(data_dir + "/toy/1.0.0", "train[10:20]", 1.0)  # the folder of the version itself
        assert all_.in_memory and not streamed.in_memory and all_.class_names == ("cat", "ant", "dog")
        np.savez(out, all=all_.images, labels=all_.labels, batch=batch.images, batch_labels=batch.labels,
                 part=part.images, last=streamed.read([149])[0], broken=len(streamed.broken))
        assert "tensorflow" not in sys.modules
    """
    result = _run_without_tensorflow(code, tmp_path, tmp_path / "out.npz")
    assert result.returncode == 0, result.stderr
    out = np.load(tmp_path / "out.npz")
    np.testing.assert_array_equal(out["all"], pixels[:149])
    np.testing.assert_array_equal(out["labels"], np.arange(149) % 3)  # in the order of TFDS, not of the alphabet
    indices = batch_indices(150, seed=0, step=1, batch_size=70) % 149  # the broken last one is replaced by the first
    np.testing.assert_array_equal(out["batch"], pixels[indices])
    np.testing.assert_array_equal(out["batch_labels"], indices % 3)
    np.testing.assert_array_equal(out["part"], pixels[10:20])
    np.testing.assert_array_equal(out["last"], pixels[:1])
    assert "toy train[149]" in result.stderr
    assert out["broken"] == 1


def test_tfds_errors_say_what_to_do(tmp_path):
    _write_tfds(tmp_path)
    command = f"python -m ddpm_jax.data prepare cifar10 --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError) as unprepared:
        _load_tfds("cifar10", tmp_path)
    assert str(unprepared.value).endswith(command)
    with pytest.raises(ValueError, match=r"'cifra10' is not a data set .*did you mean cifar10"):
        _load_tfds("cifra10", tmp_path)
    with pytest.raises(ValueError, match="'qqqqqq' is not a data set that TFDS knows"):
        _load_tfds("qqqqqq", tmp_path)
    with pytest.raises(ValueError, match="TFDS cannot open 'no such name!'"):
        _load_tfds("no such name!", tmp_path)
    with pytest.raises(ValueError, match=r"TFDS cannot open 'celeb_a_hq/999'.*BuilderConfig 999 not found"):
        _load_tfds("celeb_a_hq/999", tmp_path)
    with pytest.raises(ValueError, match=r"TFDS cannot open 'mnist': the data set in .* is 'toy'"):
        _load_tfds("mnist", tmp_path / "toy" / "1.0.0")
    with pytest.raises(ValueError, match=r"'toy' has no split 'val' .*it has .*test"):
        _load_tfds("toy", tmp_path, split="val")
    with pytest.raises(ValueError, match="'imdb_reviews' has no 'image' feature; it has label, text"):
        _load_tfds("imdb_reviews", tmp_path)


def test_tfds_in_another_format_is_refused(tmp_path):
    _write_tfds(tmp_path, file_format="tfrecord")
    with pytest.raises(ValueError, match=r"prepared as tfrecord, .* prepare toy --data_dir=DIR"):
        _load_tfds("toy", tmp_path)


def test_prepare_says_what_is_missing(tmp_path):
    code = "from ddpm_jax.cli.data import main; main()"
    for name, message in {"cifar10": "pip install 'ddpm_jax[prepare]'", "cifra10": "did you mean cifar10"}.items():
        result = _run_without_tensorflow(code, "prepare", name, f"--data_dir={tmp_path}")
        assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
        assert message in result.stderr
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the arguments must be: prepare NAME"),
        (["prepare"], "the arguments must be: prepare NAME"),
        (["prepare", "cifar10", "mnist"], "the arguments must be: prepare NAME"),
        (["prepare", "cifar10", "--data_dri=."], "Unknown command line flag 'data_dri'. Did you mean: data_dir"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(arguments, message):
    command = [sys.executable, "-m", "ddpm_jax.data", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_help_describes_the_command_and_its_flags():
    command = [sys.executable, "-m", "ddpm_jax.data", "prepare", "--help"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Downloads a TFDS data set")
    assert "--data_dir: The root of prepared data sets" in result.stdout


def test_prepare_leaves_a_prepared_data_set_alone(tmp_path):
    _write_tfds(tmp_path)
    command = [sys.executable, "-m", "ddpm_jax.data", "prepare", "toy", f"--data_dir={tmp_path}"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, f"toy is ready in {tmp_path / 'toy' / '1.0.0'}\n")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_prepare_writes_what_load_reads(tmp_path):
    for package in ("tensorflow", "importlib_resources"):
        pytest.importorskip(package, reason="needs the extra 'prepare'")
    builder = """
        import numpy as np, sys
        import tensorflow_datasets as tfds
        class Ramp(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(
                    {"image": tfds.features.Image(shape=(3, 2, 3))}))
            def _split_generators(self, manager):
                return {"train": ((i, {"image": np.full((3, 2, 3), i, np.uint8)}) for i in range(9))}
            def _generate_examples(self):
                raise AssertionError
    """
    (tmp_path / "ramp.py").write_text(textwrap.dedent(builder))
    code = "import ramp; from ddpm_jax.cli.data import main; main()"
    command = [sys.executable, "-c", code, "prepare", "ramp", f"--data_dir={tmp_path}"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    source = _load_tfds("ramp", tmp_path)
    np.testing.assert_array_equal(np.sort(source.images[:, 0, 0, 0]), np.arange(9))
    assert (source.num_classes, source.labels.tolist()) == (1, [0] * 9)


def test_importing_is_free():
    code = """
        from absl import flags
        defined = set(flags.FLAGS)
        from ddpm_jax import data
        from ddpm_jax.cli import data, doctor
        loaded = {"tensorflow", "tensorflow_datasets", "grain", "sklearn", "jax"} & set(sys.modules)
        assert not loaded, loaded
        assert set(flags.FLAGS) == defined
    """
    result = _run_without_tensorflow(code)
    assert result.returncode == 0, result.stderr
