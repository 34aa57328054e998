"""Reads files of `torch.save(state_dict, path)`, without torch and without running the code pickled in them.

A pickle is a program: it may call any function that its reader can import. This reader lets it import an ordered
dictionary, a tensor and the kinds of storage, and nothing else. Both layouts are read:

    legacy  five pickles (magic number, version, platform, the object, the keys of its storages), then each storage:
            its number of elements as int64 and its bytes. Tensors name their storage by key.
    zip     since torch 1.6: NAME/data.pkl is the object, NAME/data/KEY the bytes of one storage.
"""

import collections
import io
import math
import os
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddpm_jax.runtime import foreign_files

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_DTYPES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
}


class _Storage(NamedTuple):
    """Refers to the bytes that one or more tensors share."""

    key: str
    dtype: str
    size: int  # in elements


class _Tensor(NamedTuple):
    """Describes an array within a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # both in elements


class _Unpickler(pickle.Unpickler):
    """Builds dictionaries of `_Tensor`s, and refuses everything else that a pickle may import."""

    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file)
        self.itemsizes: dict[str, int] = {}  # in bytes, by the key of each storage that is referred to

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # Not a function of this module, whose attributes the pickle could set.
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, tuple(shape), tuple(strides))
        raise ValueError(f"it asks for {module}.{name}, which a dictionary of weights has no need of")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, size, *view = pid
        if kind != "storage" or dtype not in _DTYPES.values() or any(part is not None for part in view):
            raise ValueError(f"it refers to {pid!r}, which is not a plain storage")
        self.itemsizes[key] = np.dtype(dtype).itemsize
        return _Storage(key, dtype, size)


def _array(name: str, tensor: _Tensor, stored: bytes) -> np.ndarray:
    """Copies the elements of a tensor out of the bytes of its storage."""
    (_, dtype, size), offset, shape, strides = tensor
    numbers = (size, offset, *shape, *strides)
    if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(strides):
        raise ValueError(f"{name!r} has size {size}, offset {offset}, shape {shape} and strides {strides}")
    flat = np.frombuffer(stored, dtype)
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if count else 0
    if flat.size != size or last >= max(size, 1) or count > size:
        raise ValueError(
            f"{name!r} (offset {offset}, shape {shape}, strides {strides}) does not fit its storage of {flat.size}"
        )
    in_bytes = tuple(stride * flat.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, in_bytes, writeable=False).copy()


def _unpickle(file: io.BufferedIOBase) -> tuple[Any, dict[str, int]]:
    """Unpickles the next object in the file; beside it stand the sizes of elements of its storages, by their keys.

    Raises:
        ValueError: if it is damaged; if it numbers an object beyond its own length: Python's unpickler allocates memory
            for all smaller numbers, so that six bytes can ask for gigabytes.
    """
    start = file.tell()
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name.endswith("PUT") and argument > position - start:
            raise ValueError(f"it numbers an object {argument} after {position - start} bytes")
    file.seek(start)
    unpickler = _Unpickler(file)
    try:
        return unpickler.load(), unpickler.itemsizes
    except pickle.UnpicklingError as error:
        raise ValueError(foreign_files.cause(error)) from error


def _load_tensors(file: io.BufferedIOBase, part: tuple[str, ...]) -> tuple[dict[str, _Tensor], dict[str, int]]:
    """Unpickles the saved dictionary, without the elements of its tensors; beside it stand all storages' itemsizes."""
    tensors, itemsizes = _unpickle(file)
    for name in part:
        if not isinstance(tensors, dict) or name not in tensors:
            raise ValueError(f"it has no {'/'.join(part)}")
        tensors = tensors[name]
    if part and isinstance(tensors, list):
        tensors = {str(i): tensor for i, tensor in enumerate(tensors)}
    if not isinstance(tensors, dict):
        raise ValueError(f"it holds a {type(tensors).__name__}, not a dictionary of tensors")
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and isinstance(tensor, _Tensor) and isinstance(tensor.storage, _Storage)):
            raise ValueError(f"its entry {name!r} is not a tensor")
    return tensors, itemsizes


def _read_zip(file: io.BytesIO, part: tuple[str, ...]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise ValueError("it is compressed, which torch.save does not do")
        if sum(info.file_size for info in archive.infolist()) > file.getbuffer().nbytes:
            raise ValueError("its parts take more bytes than it has")
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it is an archive with {len(pickles)} files data.pkl, not one")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")

        tensors, _ = _load_tensors(io.BytesIO(archive.read(pickles[0])), part)
        keys = {tensor.storage.key for tensor in tensors.values()}
        stored = {key: archive.read(f"{folder}data/{key}") for key in keys}
    return {name: _array(name, tensor, stored[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(file: io.BytesIO, part: tuple[str, ...]) -> dict[str, np.ndarray]:
    magic, version, platform = (_unpickle(file)[0] for _ in range(3))
    if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION):
        raise ValueError("it is in none of torch.save's layouts")
    if not platform["little_endian"]:
        raise ValueError("its numbers are big-endian")
    tensors, itemsizes = _load_tensors(file, part)
    stored = {}
    for key in _unpickle(file)[0]:
        size = int.from_bytes(file.read(8), "little") * itemsizes[key]
        stored[key] = file.read(size)
        if len(stored[key]) != size:
            raise ValueError(f"it ends within storage {key}, after {len(stored[key])} of {size} bytes")
    return {name: _array(name, tensor, stored[tensor.storage.key]) for name, tensor in tensors.items()}


def read_state_dict(path: str | os.PathLike, part: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Reads a dictionary of tensors: name -> array of the tensor's shape and dtype.

    Args:
        path: of the file.
        part: where in a nested dictionary it stands, such as ("ema", "shadow_params"), (): it is all that there is.
            There it may be a list, too, whose tensors are named "0", "1", ...

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, holds anything but a flat dictionary of tensors, asks for anything else to be
            imported (named in the message, and not done), or a tensor reaches outside its storage.
    """
    with foreign_files.reading(path, "is not a file of weights that can be read"):
        # In memory no read can ask for more than there is, whatever length a damaged file claims.
        content = Path(path).read_bytes()
        read = _read_zip if content.startswith(b"PK\x03\x04") else _read_legacy
        return read(io.BytesIO(content), part)
