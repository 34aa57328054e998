import hashlib

import pytest

from ddpm_jax.runtime import download

CONTENT = b"weights" * 1000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DDPM_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "published"
    path.write_bytes(CONTENT)
    return path


def test_a_file_is_downloaded_once(cache, published):
    path = download.fetch("w", url=published.as_uri(), checksum=CHECKSUM)
    published.unlink()
    assert path == cache / "w" == download.fetch("w", url=published.as_uri(), checksum=CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [path]


def test_what_has_another_checksum_is_not_kept(cache, published):
    published.write_bytes(CONTENT[:-1])
    with pytest.raises(ValueError, match=f"not {CHECKSUM}; it was not kept"):
        download.fetch("w", url=published.as_uri(), checksum=CHECKSUM)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_neither_used_nor_touched(cache, published):
    cache.mkdir()
    (cache / "w").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="Delete it"):
        download.fetch("w", url=published.as_uri(), checksum=CHECKSUM)
    assert (cache / "w").read_bytes() == b"damaged"


def test_a_download_that_ends_early_leaves_nothing(cache, published, monkeypatch):
    real = download.urllib.request.urlopen

    def cut_short(*args, **kwargs):
        response = real(*args, **kwargs)
        response.headers.replace_header("Content-Length", str(len(CONTENT) + 1))
        return response

    monkeypatch.setattr(download.urllib.request, "urlopen", cut_short)
    with pytest.raises(FileNotFoundError, match="7000 of 7001 bytes"):
        download.fetch("w", url=published.as_uri(), checksum=CHECKSUM)
    assert list(cache.iterdir()) == []
