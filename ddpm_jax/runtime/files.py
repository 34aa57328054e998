"""Files that are written whole or not at all, locks that keep other processes out, and how many may be open."""

import contextlib
import fcntl
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path


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
def locked(path: Path, *, problem: str, way_out: str | None, reentrant: bool = False) -> Iterator[None]:
    """Keeps others who ask for the lock `path` out while entered.

    The kernel's lock on a file, so it ends with the process, however that ends. On a network file system it holds
    between hosts where the system supports locks, as NFS does. The file stays; who removes it does so while inside.

    Args:
        path: of the lock's file, in a folder that is there.
        problem: begins the sentence for those who are kept out, '... is in use by another run'.
        way_out: ends it, 'choose another folder'. None: they wait, and the sentence says for whom.
        reentrant: lets this process in again.

    Raises:
        ValueError: if another holds it, and there is a way out.
    """
    own = f"process {os.getpid()} on {socket.gethostname()}"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink == 0:  # its holder removed it since it was opened
                raise BlockingIOError
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "just begun"
            if way_out is None:
                print(f"{problem}, {holder}: waiting until it ends.", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            elif not (reentrant and holder == own):
                raise ValueError(f"{problem}, {holder}: wait until it ends, stop it, or {way_out}.") from None
        file.truncate(0)
        print(own, file=file, flush=True)
        yield


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
