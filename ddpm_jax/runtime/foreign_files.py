"""Files that somebody else made: whatever goes wrong in reading one is a sentence that names it.

`reading` holds the one list of what can go wrong; `open_npz` reads arrays, and takes no more memory for them than their
file accounts for.
"""

import contextlib
import errno
import json
import lzma
import math
import os
import struct
import tarfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What readers raise for bytes that are not what they should be.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,  # of a zip: encrypted, or packed as zipfile does not unpack; too deeply nested
    SyntaxError,
    TypeError,
    ValueError,  # of text too: not UTF-8, no JSON
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    tokenize.TokenError,  # of an array's header
    zipfile.BadZipFile,
    zlib.error,
)
# A file may unpack to so many bytes, or so many times its own, whichever is more: compressed images do to some ten
# times, flat ones to more.
_MOST_BYTES, _MOST_TIMES = 2**28, 100


def printable(text: object) -> str:
    r"""Writes on one line what a terminal would obey: line ends as blanks, an escape code as \x1b."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


@contextlib.contextmanager
def reading(path: str | os.PathLike, refusal: str) -> Iterator[None]:
    """Turns whatever goes wrong in reading a file within the context into one sentence.

    Args:
        path: of the file.
        refusal: what to say of a file that is damaged or something else: 'is no .npz with images'.

    Raises:
        ValueError: for such a file, with the cause.
        OSError: if it cannot be read; FileNotFoundError if it is not there.
    """
    name = printable(path)

    def refused(error: BaseException) -> ValueError:
        empty = os.path.isfile(path) and os.path.getsize(path) == 0
        return ValueError(f"{name!r} {refusal} ({'it is empty' if empty else cause(error)}).")

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no file {name}.") from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # of a decompressor; of a position before the beginning
            raise refused(error) from error
        raise type(error)(f"Cannot read {name!r}: {error.strerror}.") from error
    except _DAMAGE as error:
        raise refused(error) from error


def cause(error: BaseException) -> str:
    """Returns what an error says, on one line without a full stop; where it says nothing, its name."""
    kind = type(error).__name__
    said = printable(error).rstrip(".:")
    if isinstance(error, MemoryError):
        return f"it asks for more memory than there is{f' ({said})' if said else ''}"
    if isinstance(error, KeyError):
        return f"it has no {said}" if len(error.args) == 1 and said.startswith("'") else said
    return said or kind


def most_unpacked_bytes(size: int) -> int:
    """Returns how many bytes a compressed file of `size` bytes may unpack to; what does to more is hostile."""
    return max(_MOST_BYTES, _MOST_TIMES * size)


def read_json(path: str | os.PathLike, refusal: str) -> Any:
    """Reads a file of JSON; raises as `reading`."""
    with reading(path, refusal):
        return json.loads(Path(path).read_text(encoding="utf-8"))


class _Arrays(Mapping[str, np.ndarray]):
    """The arrays of an open .npz by name, each read when it is asked for."""

    def __init__(self, archive: zipfile.ZipFile):
        self._archive = archive
        self._members = {
            info.filename.removesuffix(".npy"): info for info in archive.infolist() if info.filename.endswith(".npy")
        }

    def __getitem__(self, name: str) -> np.ndarray:
        info = self._members[name]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a bound
            raise ValueError(f"{name!r} is packed by method {info.compress_type}, which NumPy does not use")
        with self._archive.open(info) as member:
            _check_size(name, member, info.file_size)
        with self._archive.open(info) as member:
            return np.lib.format.read_array(member, allow_pickle=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


@contextlib.contextmanager
def open_npz(path: str | os.PathLike, refusal: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Opens an .npz of arrays without Python objects; what goes wrong within the context is told as by `reading`.

    Raises:
        ValueError: also if its arrays take over 256 MiB and over 100 times its own size, or one says that it is larger
            than what is there of it.
    """
    with reading(path, refusal), zipfile.ZipFile(path) as archive:
        size, unpacked = os.stat(path).st_size, sum(info.file_size for info in archive.infolist())
        if unpacked > most_unpacked_bytes(size):
            raise ValueError(f"its {size} bytes unpack to {unpacked}, which no images or numbers do")
        yield _Arrays(archive)


def _check_size(name: str, member: Any, size: int) -> None:
    """Refuses an array whose header does not fit the bytes that follow it: NumPy allocates what the header says.

    Raises:
        ValueError: for it.
    """
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f"{name!r} has version {version} of the format, not of an array of numbers")
    if dtype.hasobject:
        raise ValueError(f"{name!r} holds Python objects, which are not read (allow_pickle=False)")
    if (declared := math.prod(shape) * dtype.itemsize) != (held := size - member.tell()):
        raise ValueError(f"{name!r} says {list(shape)} {dtype}, {declared} bytes, and holds {held}")
