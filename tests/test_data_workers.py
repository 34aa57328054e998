"""A streamed data set read by worker processes: the batches of one process, and what is said when one dies."""

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import tarfile

import cloudpickle
import numpy as np
import pytest
from test_data import _load_folder, _write_folder, _write_tfds

from ddpm_jax.data import batch_indices, batches, load, workers


def _read(source, num_workers, **order):
    with contextlib.closing(batches(source, num_workers=num_workers, **order)) as stream:
        return list(stream)


def _assert_same(processes, threads):
    for one, other in zip(processes, threads, strict=True):
        for array, expected in zip(one, other, strict=True):
            assert type(array) is np.ndarray  # nothing that lies in shared memory
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


def test_two_processes_read_what_threads_read_and_no_more(tmp_path, caplog):
    order = dict(seed=3, batch_size=60, start_step=2, num_steps=5, rows=slice(20, 50))  # resumed, one of several hosts
    own = np.concatenate([batch_indices(300, seed=3, step=step, batch_size=60)[20:50] for step in range(2, 7)])
    broken = {int(own[0]), int(own[-1])}
    _write_folder(tmp_path, size=300, broken=broken)
    threads, processes = (_load_folder(tmp_path, streamed=True, channels=3) for _ in range(2))
    expected = _read(threads, 0, **order)
    for i in set(range(300)) - {*own.tolist(), *((i + 1) % 300 for i in broken)}:
        (tmp_path / ("cat" if i < 150 else "dog") / f"{i:04}.png").unlink()
    caplog.clear()
    _assert_same(_read(processes, 2, **order), expected)
    assert not multiprocessing.active_children()
    assert len(processes.broken) == len(threads.broken) == len(broken)
    assert caplog.text.count("Skipped a broken image") == len(broken)


@pytest.mark.parametrize("kind", ["tar", "tfds", "digits"])
def test_every_streamed_data_set_can_be_sent_to_a_process(tmp_path, kind):
    if kind == "tar":
        _write_folder(tmp_path / "tree", size=9)
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(tmp_path / "tree", arcname=".")
        source = _load_folder(tmp_path / "a.tar", streamed=True)
    elif kind == "tfds":
        gc.collect()  # what processes of other tests left: its end imports a module, which TFDS's own import hinders
        _write_tfds(tmp_path)
        source = load("toy", data_dir=str(tmp_path), image_size=(3, 2), channels=3, memory_limit_gib=0.0)
    else:
        source = load("digits", memory_limit_gib=0.0)
    (expected,) = batches(source, seed=0, batch_size=7, start_step=3, num_steps=1)
    reading = workers._ReadBatch(source, seed=0, positions=np.arange(7), stride=7)
    sent = cloudpickle.dumps(reading)
    del source, reading  # and with it the open file
    images, labels, met = cloudpickle.loads(sent)(3)
    np.testing.assert_array_equal(images, expected.images)
    np.testing.assert_array_equal(labels, expected.labels)
    assert met == []


def test_a_process_that_dies_is_reported_with_its_cause(tmp_path):
    _write_folder(tmp_path, size=7)
    stream = batches(_load_folder(tmp_path, streamed=True), seed=0, batch_size=4, num_workers=1)
    next(stream)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGTERM)  # as to all processes when a run is stopped: it reads on
    next(stream)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(ChildProcessError, match=r"data.num_workers\) was killed, SIGKILL: .* want of memory"):
        list(itertools.islice(stream, 100))  # some are read ahead
    assert not multiprocessing.active_children()
