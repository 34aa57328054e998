"""Damaged and hostile files: each is read or refused in one sentence that names it, and takes no more than it may."""

import contextlib
import errno
import io
import json
import lzma
import os
import resource
import struct
import tarfile
import zipfile
import zlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ddpm_jax.runtime import foreign_files

REFUSAL = "is no .npz of images"


def read(path):
    with foreign_files.open_npz(path, REFUSAL) as arrays:
        return dict(arrays)


def npz(compression=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return bytearray(file.getvalue())


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def with_field(content, *, local, central, value):
    """Sets a 16-bit field of the first member, in both of its headers."""
    for start, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        struct.pack_into("<H", content, content.index(start) + offset, value)
    return content


GOOD = npy(np.arange(60, dtype=np.uint8).reshape(3, 4, 5, 1))
HUGE = GOOD.replace(b"(3, 4, 5, 1), }      ", b"(3000000000000, 5), }")
DAMAGED = npz(arr_0=GOOD)
DAMAGED[DAMAGED.index(b"PK\1\2") - 1] ^= 1  # the last pixel


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"no archive", "not a zip file"),
        (npz(arr_0=GOOD)[:-30], "not a zip file"),
        (DAMAGED, "Bad CRC-32"),
        (npz(arr_0=b""), "."),
        (npz(arr_0=GOOD[:-1]), r"says \[3, 4, 5, 1\] uint8, 60 bytes, and holds 59"),
        (npz(arr_0=HUGE), r"says \[3000000000000, 5\] uint8, 15000000000000 bytes, and holds 60"),
        (npz(arr_0=npy(np.array([{}], dtype=object))), "allow_pickle=False"),
        (with_field(npz(arr_0=GOOD), local=6, central=8, value=1), "is encrypted"),
        (with_field(npz(arr_0=GOOD), local=8, central=10, value=99), "method 99"),
        (npz(zipfile.ZIP_BZIP2, arr_0=GOOD), "method 12"),
        (npz(zipfile.ZIP_LZMA, arr_0=GOOD), "method 14"),
    ],
    ids=[
        "empty", "text", "cut", "crc", "empty-member", "short-member", "huge", "objects", "encrypted", "unknown",
        "bzip2", "lzma",
    ],
)  # fmt: skip
def test_a_damaged_npz_is_refused_in_one_sentence(tmp_path, content, problem):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^'{path}' {REFUSAL} \(.*{problem}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_a_few_bytes_that_unpack_to_many_are_refused_before_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign_files, "_MOST_BYTES", 2**20)
    path, flat = tmp_path / "bomb.npz", npy(np.zeros((4, 1024, 1024), np.uint8))
    path.write_bytes(npz(zipfile.ZIP_DEFLATED, arr_0=flat, more=flat))
    with pytest.raises(ValueError, match=f"its {path.stat().st_size} bytes unpack to {2 * len(flat)}"):
        read(path)
    path.write_bytes(npz(arr_0=flat))  # not packed
    assert read(path)["arr_0"].shape == (4, 1024, 1024)


def test_what_numpy_writes_comes_back(tmp_path):
    arrays = dict(
        images=np.zeros((2000, 8, 8, 3), np.uint8), turned=np.asfortranarray(np.ones((2, 3))), none=np.empty((0, 4)),
        name=np.array("héé"), number=np.array(3), floats=np.random.default_rng(0).standard_normal((30, 40)),
    )  # fmt: skip
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        found = read(tmp_path / "a.npz")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array, strict=True)


@hypothesis.given(data=st.data())
def test_a_damaged_npz_is_read_or_refused_and_nothing_else(data, tmp_path_factory):
    compression = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    content = npz(compression, arr_0=GOOD, arr_1=npy(np.array("name")))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    try:
        arrays = read(path)
    except ValueError as error:
        assert REFUSAL in str(error)  # noqa: PT017 - or it is read
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


@pytest.mark.parametrize(
    "error",
    [
        EOFError(), KeyError("mu"), MemoryError(), NotImplementedError("no such method"), RecursionError("too deep"),
        OverflowError("too large"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), struct.error("4"),
        zlib.error("Error -3"), lzma.LZMAError("Corrupt"), tarfile.ReadError("cut"), json.JSONDecodeError("no", "x", 0),
        OSError("Not a gzipped file"), OSError(errno.EINVAL, "Invalid argument"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_goes_wrong_becomes_one_sentence_that_names_the_file(tmp_path, error):
    with pytest.raises(ValueError, match=r"a.bin' is no weights \(.+\)\.$"), foreign_files.reading(
        tmp_path / "a.bin", "is no weights"
    ):  # fmt: skip
        raise error


def test_a_mistake_of_ours_is_no_damage(tmp_path):
    with pytest.raises(NameError), foreign_files.reading(tmp_path / "a.bin", "is no weights"):
        raise NameError("typo")


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^There is no file {tmp_path / 'none.npz'}.$"):
        read(tmp_path / "none.npz")
    with pytest.raises(IsADirectoryError, match=f"^Cannot read '{tmp_path}': Is a directory.$"):
        read(tmp_path)
    (tmp_path / "good.npz").write_bytes(npz(arr_0=GOOD))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="^Cannot read '.*good.npz': Too many open files.$"):
            read(tmp_path / "good.npz")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in opened:
            os.close(descriptor)


def test_escape_codes_are_shown_and_not_obeyed(tmp_path):
    path = tmp_path / "\x1b[31mred\n.npz"
    path.write_bytes(npz(arr_0=GOOD))
    with pytest.raises(ValueError, match="it has no") as caught, foreign_files.open_npz(path, REFUSAL) as arrays:
        arrays["\x1b]0;owned\x07"]
    assert str(caught.value).isprintable()
    assert foreign_files.printable("é 猫\x1b[2J\u202e\udcff\n") == r"é 猫\x1b[2J\u202e\udcff"


def test_json_is_read_or_refused(tmp_path):
    path = tmp_path / "a.json"
    for content, problem in ((b"{", "Expecting"), (b"\xff", "can't decode"), (b"[" * 10**5, "recursion"), (b"", "emp")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"a.json' is no table \(.*{problem}"):
            foreign_files.read_json(path, "is no table")
    path.write_text('{"step": 3}')
    assert foreign_files.read_json(path, "is no table") == {"step": 3}
