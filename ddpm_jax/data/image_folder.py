"""Reads encoded images and their labels from a folder or a tar.

Both are read the same way. A top folder named after the split (train/, test/, ...) holds that split. Without such
folders the whole tree is the training set, but for a share that may be held out as split 'test'. The folders inside are
the classes, sorted by name; files further down belong to the class above them. A single root folder around everything
is skipped. A tar is never unpacked: a plain one is read in place, a compressed one from front to back.
"""

import functools
import hashlib
import logging
import os
import posixpath
import tarfile
import weakref
from collections.abc import Iterator
from typing import NamedTuple

from tqdm import tqdm

from ddpm_jax.data.decode import EXTENSIONS
from ddpm_jax.data.source import Record, Records
from ddpm_jax.runtime import foreign_files

_log = logging.getLogger(__name__)
_SPLITS = ("train", "test", "val", "valid", "validation")
_MAX_FILE_BYTES = 2**29  # The largest image that Pillow decodes has 2^28 bytes in 8-bit RGB.
_MAX_HEADER_BYTES = 2**20  # A path has at most 4096.
_SPARSE_CONTINUES = 482  # In the header of a sparse file: whether its map goes on in more headers.
# Members that tarfile reads into memory as it lists a tar: they hold a long name or more about the next member.
_HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


class _Images(NamedTuple):
    """Holds the images of a split, in the order of their paths."""

    paths: list[str]  # within the folder or tar
    keys: list[str]  # the same below the folder of the split
    class_names: tuple[str, ...]
    labels: list[int]


def open_image_folder(data_dir: str, *, split: str, holdout: float = 0.0) -> Records:
    """Lists the images of a split in the order of their paths, in a folder and in a tar alike.

    Args:
        data_dir: the folder or tar.
        split: the name of a folder in it; without such folders 'train', 'all' or, with `holdout`, 'test'.
        holdout: the share of images that make up 'test' where there are no such folders, chosen by their names.

    Raises:
        FileNotFoundError: if there is nothing at `data_dir`.
        ValueError: if `data_dir` is empty, is neither a folder nor a tar, holds no images, does not hold this split,
            has images beside its class folders, or has splits of its own besides `holdout`.
    """
    if not data_dir:
        raise ValueError("image_folder needs data_dir: a folder, or a .tar, .tar.gz or .tar.xz, of images.")
    path = os.path.expanduser(data_dir)
    if os.path.isdir(path):
        return _open_folder(path, split=split, holdout=holdout)
    if os.path.isfile(path):
        return _open_tar(path, split=split, holdout=holdout)
    raise FileNotFoundError(f"data_dir={data_dir!r} does not exist; it must be a folder or a tar of images.")


def _is_image(path: str) -> bool:
    """Tells by its name whether a file is an image; hidden files and those of macOS in archives are not."""
    parts = path.split("/")
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
    return not hidden and posixpath.splitext(parts[-1])[1].lower() in EXTENSIONS


def _select(paths: list[str], *, split: str, holdout: float, root: str) -> _Images:
    """Returns the images of a split among the files of a folder or tar."""
    trees = sorted(path.split("/") for path in paths if _is_image(path))
    if not trees:
        raise ValueError(f"{root!r} holds no images: no file in it ends in one of {' '.join(EXTENSIONS)}.")
    depth = 0  # of the folder that holds the classes
    tops = {tree[0] for tree in trees if len(tree) > 1}
    known = {split, *_SPLITS}
    if len(tops) == 1 and not tops & known and all(len(tree) > 2 for tree in trees):
        depth = 1
        tops = {tree[1] for tree in trees if len(tree) > 2}
    splits = sorted(tops & known)
    if splits:
        if holdout:
            raise ValueError(f"{root!r} has the splits {', '.join(splits)}, so data.holdout={holdout:g} must be 0.")
        trees = [tree for tree in trees if len(tree) > depth + 1 and tree[depth] == split]
        depth += 1
    if not trees:
        raise ValueError(f"{root!r} has no split {split!r}; it has {', '.join(splits)}.")
    classes = [tree[depth] if len(tree) > depth + 1 else "" for tree in trees]
    if "" in classes and any(classes):
        first = "/".join(trees[classes.index("")])
        raise ValueError(
            f"{root!r} has {classes.count('')} images beside its class folders (first: {first}); move them into one."
        )
    keys = ["/".join(tree[depth:]) for tree in trees]
    chosen = range(len(trees)) if splits else _made_split(keys, split=split, holdout=holdout, root=root)
    class_names = tuple(sorted(set(classes) - {""}))  # of all images, so that the parts of a set agree on the labels
    label_of = {name: label for label, name in enumerate(class_names)}
    return _Images(
        paths=["/".join(trees[i]) for i in chosen], keys=[keys[i] for i in chosen], class_names=class_names,
        labels=[label_of.get(classes[i], 0) for i in chosen],
    )  # fmt: skip


def _made_split(keys: list[str], *, split: str, holdout: float, root: str) -> list[int]:
    """Chooses the images of a split of a set that has none of its own: each one's name decides where it belongs."""
    if split not in ("train", "all") and not (holdout and split == "test"):
        raise ValueError(
            f"{root!r} has no folders train/ and test/, so all of it is the training set, and has no split {split!r}; "
            "train with data.holdout=0.1 to keep a tenth of it out as split 'test', or sort the images into such "
            "folders."
        )
    hashes = (hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest() for key in keys)
    held_out = [int.from_bytes(digest[:8]) < holdout * 2**64 for digest in hashes]
    chosen = [i for i, held in enumerate(held_out) if split == "all" or held == (split == "test")]
    if not chosen:
        raise ValueError(
            f"data.holdout={holdout:g} leaves none of the {len(keys)} images of {root!r} for split {split!r}."
        )
    return chosen


def _walk(root: str, below: str = "", seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yields the paths of all files under `root`, relative to it; follows links, but not back to a folder above."""
    folder = os.path.join(root, below)
    real_path = os.path.realpath(folder)
    if real_path in seen:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = posixpath.join(below, entry.name)
            if entry.is_dir():
                yield from _walk(root, path, seen | {real_path})
            elif entry.is_file():  # not a pipe: opening one would block
                yield path


def _open_folder(root: str, *, split: str, holdout: float) -> Records:
    paths, keys, class_names, labels = _select(list(_walk(root)), split=split, holdout=holdout, root=root)

    def read(i: int) -> Record:
        with open(os.path.join(root, paths[i]), "rb") as file:
            size = min(os.fstat(file.fileno()).st_size, _MAX_FILE_BYTES)  # a larger file fails to decode
            return Record(file.read(size), labels[i])

    return Records(
        size=len(paths),
        class_names=class_names,
        name=lambda i: foreign_files.printable(os.path.join(root, paths[i])),
        read=read,
        keys=keys,
    )


class _Member(tarfile.TarInfo):
    """Describes a member of a tar, and refuses one whose listing would take much memory or time."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "_Member":
        """Reads a header's block of 512 bytes."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _HEADERS and member.size > _MAX_HEADER_BYTES:
            raise tarfile.TarError(f"a header of {member.size} bytes, more than {_MAX_HEADER_BYTES}")
        if member.type == tarfile.GNUTYPE_SPARSE and buf[_SPARSE_CONTINUES]:
            raise tarfile.TarError("a sparse file whose map of holes may have any length")
        return member

    def _proc_gnusparse_10(self, *_: object) -> None:  # tarfile's, of a map that stands among the data
        raise tarfile.TarError("a sparse file whose map of holes may have any length")


def _list_tar(path: str, *, mode: str) -> dict[str, tuple[int, int]]:
    """Maps each file's name to where its data lies in the (decompressed) archive: (offset, bytes)."""
    files, refused = {}, []
    size = os.path.getsize(path)
    most = foreign_files.most_unpacked_bytes(size)
    with tarfile.open(path, mode, tarinfo=_Member) as tar:
        # The bar appears after two seconds, and only if stderr is a terminal.
        for member in tqdm(tar, desc="listing the archive", unit="file", delay=2.0, disable=None):
            if member.size < 0:  # the iteration would go back, and never end
                raise tarfile.TarError(f"{member.name!r} has {member.size} bytes")
            if tar.offset > most:  # it has not been unpacked so far yet
                raise tarfile.TarError(
                    f"its {size} bytes unpack to more than {most}: unpack it into a folder if you trust it"
                )
            name = posixpath.normpath(member.name)
            leads_out = name.startswith(("/", "../")) or name == ".."
            if member.isreg() and not member.issparse() and not leads_out and member.size <= _MAX_FILE_BYTES:
                files[name] = (member.offset_data, member.size)  # of two with the same name the last counts, as in tar
            elif not member.isdir():
                refused.append(member.name)
        # Iteration ends silently at a truncated or wrong header too, not only at the zeros that end an archive.
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end-of-archive mark after the last file: it may have been cut short")
    if refused:
        _log.warning(
            "%s: ignored %d members: links, devices, sparse or huge files, and paths that lead out of it (first: %s).",
            *(foreign_files.printable(path), len(refused), foreign_files.printable(refused[0])),
        )
    return files


def _open_tar(path: str, *, split: str, holdout: float) -> Records:
    with foreign_files.reading(path, "is not a folder, nor a whole and readable tar of images"):
        try:
            files, compressed = _list_tar(path, mode="r:"), False
        except tarfile.ReadError:
            files, compressed = _list_tar(path, mode="r:*"), True
    paths, keys, class_names, labels = _select(list(files), split=split, holdout=holdout, root=path)
    places = [files[name] for name in paths]
    records = functools.partial(
        Records, size=len(paths), class_names=class_names, name=lambda i: foreign_files.printable(f"{path}:{paths[i]}"),
        keys=keys,
    )  # fmt: skip
    if compressed:
        return records(read=None, scan=functools.partial(_scan_tar, path, places=places, labels=labels))
    file = _OpenFile(path)

    def read(i: int) -> Record:
        return Record(file.read(*places[i]), labels[i])

    return records(read=read)


class _OpenFile:
    """Reads parts of a file, in any thread; a copy of it in another process opens the file there."""

    def __init__(self, path: str):
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __reduce__(self) -> tuple:
        return _OpenFile, (self._path,)

    def read(self, offset: int, size: int) -> bytes:
        """Reads `size` bytes from `offset` on."""
        return os.pread(self._descriptor, size, offset)  # threads share no file position


def _scan_tar(path: str, *, places: list[tuple[int, int]], labels: list[int]) -> Iterator[tuple[int, Record]]:
    """Yields the files at `places` in the order in which a compressed archive stores them."""
    index_at = {offset: i for i, (offset, _) in enumerate(places)}
    with tarfile.open(path, tarinfo=_Member) as tar:
        for member in tar:
            i = index_at.get(member.offset_data)
            if i is not None and member.size == places[i][1]:
                yield i, Record(tar.extractfile(member).read(), labels[i])
