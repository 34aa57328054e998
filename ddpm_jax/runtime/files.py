"""Files that are written whole or not at all, locks that keep other processes out, and how many may be open."""

import contextlib
import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a path to write a file to; it takes the name `path` at the end of the context, when all is on the disk.

    `path` is either the old file or the new one, never half of it, whatever ends the process or the machine.

    Raises:
        OSError: if it cannot be written, naming `path`.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):
            raise type(error)(f"{path} was not written: {error.strerror or error}.") from error
        raise


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that it is either the old one or the new one; see `atomically`."""
    with atomically(path) as unfinished:
        unfinished.write_text(text)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, *, problem: str, way_out: str, reentrant: bool = False) -> Iterator[None]:
    """Keeps others who ask for the lock `path` out while entered.

    The kernel's lock on a file, so it ends with the process, however that ends. On a network file system it holds
    between hosts where the system supports locks, as NFS does. The file stays; who removes it does so while inside.

    Args:
        path: of the lock's file, in a folder that is there.
        problem: begins the sentence for those who are kept out, '... is in use by another run'.
        way_out: ends it, 'choose another folder'.
        reentrant: lets this process in again.

    Raises:
        ValueError: if another holds it.
    """
    with path.open("a+") as file:
        if _take(file, wait=False):
            _sign(file)
        elif not (reentrant and _holder(file) == _own_name()):
            raise ValueError(f"{problem}, {_holder(file)}: wait until it ends, stop it, or {way_out}.")
        yield


@contextlib.contextmanager
def one_at_a_time(path: Path, *, doing: str) -> Iterator[None]:
    """Lets one process at a time work on the file `path`; the others wait, and print for whom.

    The lock is as in `locked`; its file `.<name>.lock` lies beside `path` meanwhile.

    Args:
        path: of the file, in a folder that is there.
        doing: what is done to it, 'written'.
    """
    lock = path.with_name(f".{path.name}.lock")
    with contextlib.ExitStack() as opened:
        while not _take(file := opened.enter_context(lock.open("a+")), wait=False):
            print(f"{path} is being {doing} by another command, {_holder(file)}: waiting until it ends.", flush=True)
            if _take(file, wait=True):
                break
        _sign(file)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _take(file: TextIO, *, wait: bool) -> bool:
    """Takes the lock that is an open file; False: another has it, or it is none any more, as its holder removed it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip() or "just begun"


def _sign(file: TextIO) -> None:
    file.truncate(0)
    print(_own_name(), file=file, flush=True)


def allow_open(least: int) -> None:
    """Raises this process's own limit of open files to `least` where it is lower and the system lets it.

    Raises:
        ValueError: where the system does not.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY or limit >= least:
        return
    if most != resource.RLIM_INFINITY and most < least:
        raise ValueError(f"Up to {least} files are open at a time, and {most} may be: allow more (ulimit -n {least}).")
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, most))
