"""The input pipeline alone, beside PyTorch's DataLoader on the same files and beside what a train step eats.

JPEGs of 32x32 from memory (decoded once), from array_record as TFDS lays it out, and from a folder: streamed by threads
and by as many worker processes as DataLoader has. And real steps of the CIFAR-10 model, fed from the folder: which part
of the time the step loop waits for data.

python -m benchmarks.input_pipeline [--quick]
"""

import contextlib
import io
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from benchmarks import command, hardware, workloads
from benchmarks.report import Measured, Ratio, Report
from benchmarks.timing import alternate, ratio
from ddpm_jax import data

_SHAPE = (32, 32, 3)
_PASSES = 100  # from memory, which takes no time
_READ_AHEAD = 4  # batches that a worker process has ready once it has had time


def measure(*, quick: bool) -> Report:
    """Images a second, and the share of waiting."""
    batch_size, num_images, workers = 128, 512 if quick else 10_000, hardware.num_cores()
    settings = {"images": f"{num_images} JPEGs of 32x32", "batch": batch_size, "worker processes": workers}
    results = Report("Input pipeline", settings)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def pull(source: data.Source, num_workers: int = 0, *, passes: int = 1) -> Callable[[], None]:
            batches = _batches(source, batch_size, num_workers=num_workers)
            stack.callback(batches.close)
            count = passes * num_batches + _READ_AHEAD * num_workers  # what lay ready counts for nothing
            return lambda: [None for _ in itertools.islice(batches, count)] and None

        files = Path(folder) / "files"
        encoded = _write_files(files, num_images)
        _write_array_record(Path(folder) / "tfds", encoded)
        folder_source = _source("image_folder", files, memory_limit_gib=0.0)
        eaten, waited = _feed(folder_source, quick=quick)  # first: what is timed next reads ahead for a while
        record_source = _source("jpegs", Path(folder) / "tfds", memory_limit_gib=0.0)
        num_batches = num_images // batch_size  # of one pass
        # Whoever reads ahead in another's turn does so in one of array_record or memory: not beside those compared.
        contenders = {
            "ours, array_record": pull(record_source),
            "ours, array_record, worker processes": pull(record_source, workers),
            "ours, from memory": pull(_source("image_folder", files), passes=_PASSES),
            "DataLoader, folder, worker processes": _load(files, batch_size, workers=workers),
            "ours, folder, worker processes": pull(folder_source, workers),
            "ours, folder": pull(folder_source),
        }
        units = dict.fromkeys(contenders, num_batches * batch_size)
        units["ours, from memory"] *= _PASSES
        seconds = alternate(contenders, units=units, repeats=2 if quick else 7).seconds
        rates = {name: Measured([1 / value for value in values], "images/s") for name, values in seconds.items()}
        results.rows.update(rates)
    results.rows["eaten by the train step, CIFAR-10 model"] = Measured(eaten, "images/s")
    ours, threads, theirs = (
        seconds[name]
        for name in ("ours, folder, worker processes", "ours, folder", "DataLoader, folder, worker processes")
    )
    results.ratios["speed over DataLoader with as many processes"] = Ratio(ratio(theirs, ours), at_least=1.0)
    results.ratios["speed of worker processes over threads"] = Ratio(ratio(threads, ours))
    results.ratios["images from the folder over those eaten"] = Ratio(
        min(rates["ours, folder"].values) / max(eaten), at_least=1.0
    )
    results.ratios["share of the time in which the step loop waits for data"] = Ratio(waited, at_most=0.02)
    return results


def _source(name: str, path: Path, *, memory_limit_gib: float = 4.0) -> data.Source:
    """0 GiB: streamed."""
    return data.load(
        name, split="train", data_dir=str(path), image_size=_SHAPE[:2], channels=3, memory_limit_gib=memory_limit_gib
    )


def _batches(source: data.Source, batch_size: int, *, num_workers: int = 0) -> Iterator[data.Batch]:
    return data.batches(source, seed=0, batch_size=batch_size, num_workers=num_workers)


def _feed(source: data.Source, *, quick: bool) -> tuple[list[float], float]:
    """Images a second of some train steps, and the share of their time spent waiting for the next batch."""
    config = workloads.cifar10(quick=quick)
    config.data.image_size = _SHAPE[:2]
    training, steps = workloads.Training(config), 200 if hardware.on_gpu() and not quick else 8
    batches = _batches(source, config.train.batch_size)
    training.run(next(batches).images[None], dispatches=1)  # compiles
    rates, waited, begin = [], 0.0, time.perf_counter()
    for _ in range(steps):
        begin_wait = time.perf_counter()
        images = next(batches).images[None]
        waited += time.perf_counter() - begin_wait
        training.run(images, dispatches=1)
        rates.append(config.train.batch_size / (time.perf_counter() - begin_wait))
    total = time.perf_counter() - begin
    batches.close()
    return rates, waited / total


def _write_files(folder: Path, count: int) -> list[bytes]:
    """Images as smooth as photographs, so that decoding costs what it does for those."""
    folder.mkdir()
    rng, encoded = np.random.default_rng(0), []
    for i in range(count):
        rough = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
        stream = io.BytesIO()
        rough.resize(_SHAPE[1::-1], Image.Resampling.BICUBIC).save(stream, "jpeg", quality=90)
        encoded.append(stream.getvalue())
        (folder / f"{i:05}.jpg").write_bytes(encoded[-1])
    return encoded


def _write_array_record(data_dir: Path, encoded: list[bytes]) -> None:
    """What TFDS would have prepared: one shard of tf.train.Examples, and the two files that describe it."""
    folder = data_dir / "jpegs" / "1.0.0"
    folder.mkdir(parents=True)
    writer = ArrayRecordWriter(str(folder / "jpegs-train.array_record-00000-of-00001"), "group_size:1")
    for image in encoded:
        entry = _field(1, b"image") + _field(2, _field(1, _field(1, image)))
        writer.write(_field(1, _field(1, entry)))
    writer.close()
    split = dict(
        name="train", shardLengths=[str(len(encoded))], numBytes="1",
        filepathTemplate="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )  # fmt: skip
    info = dict(name="jpegs", version="1.0.0", fileFormat="array_record", splits=[split])
    core = "tensorflow_datasets.core.features"
    image = {"dtype": "uint8", "shape": {"dimensions": [str(n) for n in _SHAPE]}}
    features = {"image": {"image": image, "pythonClassName": f"{core}.image_feature.Image"}}
    tree = {"featuresDict": {"features": features}, "pythonClassName": f"{core}.features_dict.FeaturesDict"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "features.json").write_text(json.dumps(tree))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer, of less than 2^14 bytes."""
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + content


class _Files(torch.utils.data.Dataset):
    def __init__(self, folder: Path):
        self._paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self._paths[index]) as image:
            return torch.from_numpy(np.array(image.convert("RGB")))


def _load(folder: Path, batch_size: int, *, workers: int) -> Callable[[], None]:
    """One pass; the worker processes live on, as ours do."""
    loader = torch.utils.data.DataLoader(
        _Files(folder), batch_size, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=True,
        multiprocessing_context="spawn",  # JAX has threads, so that a fork could hang
    )  # fmt: skip

    def run() -> None:
        for _ in loader:
            pass

    return run


if __name__ == "__main__":
    command.run(measure)
