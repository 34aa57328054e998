"""Published files, downloaded once and verified by their checksum."""

import hashlib
import http.client
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path

from tqdm import tqdm

from ddpm_jax.runtime import cache

_TIMEOUT_SECONDS = 30


def sha256(path: Path) -> str:
    """Computes the SHA-256 of a file, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, *, url: str, checksum: str) -> Path:
    """Returns the path of a published file, downloaded into `cache.folder()` unless it lies there.

    Whole or not at all: processes may fetch the same file at the same time, and be killed while they do.

    Args:
        name: of the file in the cache folder.
        url: where it is published.
        checksum: its SHA-256 in hex digits, verified at each call.

    Raises:
        FileNotFoundError: if it is not there and cannot be downloaded; the message says how to bring it by hand.
        ValueError: if the file there, or the one downloaded, has another checksum.
    """
    path = cache.folder() / name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{name}.") as folder:
                unfinished = Path(folder) / name
                _download(url, unfinished)
                if (digest := sha256(unfinished)) != checksum:
                    raise ValueError(f"{url} holds a file of SHA-256 {digest}, not {checksum}; it was not kept.")
                os.replace(unfinished, path)
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileNotFoundError(
                f"{str(path)!r} is not there, and could not be downloaded ({reason}): get {url} on a machine with a "
                f"network, check that its SHA-256 is {checksum}, and put it there under that name."
            ) from error
    elif (digest := sha256(path)) != checksum:
        raise ValueError(
            f"{str(path)!r} has SHA-256 {digest}, not {checksum}: it is damaged, or another file. Delete it, and it is "
            f"downloaded again."
        )
    return path


def _download(url: str, target: Path) -> None:
    """Downloads `url` to `target`; OSError or HTTPException if that fails, or fewer bytes come than announced."""
    with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response, open(target, "wb") as file:
        size = int(response.headers.get("Content-Length") or 0)
        with tqdm.wrapattr(response, "read", total=size or None, desc=target.name) as stream:
            shutil.copyfileobj(stream, file)
        if size and file.tell() != size:
            raise OSError(f"{file.tell()} of {size} bytes came")
