"""Each reader of an .npz refuses what is damaged or hostile in one sentence that names the file."""

import numpy as np
import pytest

from ddpm_jax.evaluation import quality
from ddpm_jax.metrics import classifier, inception, moments
from ddpm_jax.runs import sample_files
from ddpm_jax.runtime import foreign_files

READERS = {
    "samples": (sample_files.read, {"arr_0": np.zeros((9, 4, 4, 3), np.uint8)}),
    "statistics": (moments.load, {"mu": np.zeros(3), "sigma": np.eye(3)}),
    "classifier": (classifier.read, {"name": np.array("c"), "Dense_0/kernel": np.zeros((64, 3))}),
    "inception": (inception.read, {"fc.bias": np.zeros(1008)}),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_npz_is_refused(tmp_path, monkeypatch, reader, packed):
    read, arrays = READERS[reader]
    path = tmp_path / "given.npz"
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    whole = path.read_bytes()
    start, central = whole.index(b"NUMPY") if not packed else 80, whole.index(b"PK\1\2")
    encrypted, unknown = bytearray(whole), bytearray(whole)
    for at, local in ((0, 6), (central, 8)):
        encrypted[at + local] |= 1
        unknown[at + local + 2] = 99
    for content in (b"", whole[:-9], encrypted, unknown, whole[:start] + b"\xff" * 30 + whole[start + 30 :]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="given.npz' ") as caught:
            read(path)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="There is no file .*given.npz"):
        read(path)
    monkeypatch.setattr(foreign_files, "_MOST_BYTES", 10)
    np.savez_compressed(path, **{name: np.zeros(10**6) for name in arrays})
    with pytest.raises(ValueError, match="given.npz' .* bytes unpack to "):
        read(path)


def test_what_only_looks_like_an_archive_is_refused_as_the_reference(tmp_path):
    path = tmp_path / "given.npz"
    np.savez(path, mu=np.zeros(3))
    whole = path.read_bytes()
    assert quality.holds_statistics(path)
    path.write_bytes(whole.replace(b"PK\1\2", b"PK\1\3"))
    with pytest.raises(ValueError, match="given.npz' is no .npz of images or of statistics"):
        quality.holds_statistics(path)


@pytest.mark.parametrize("name", ["w.pth", "w.npz"])
def test_weights_that_are_empty_are_called_so(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f"{name}' is not .* weights that can be read .it is empty.*"):
        inception.read(tmp_path / name)
