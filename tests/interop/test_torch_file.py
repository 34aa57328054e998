import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm_jax.interop.torch_file import read_state_dict

DATA = Path(__file__).parent.parent / "data"
LAYOUTS = [DATA / "torch_legacy.pth", DATA / "torch_zip.pth"]  # both saved by torch


def tensor(size=6, offset=0, shape=(2, 3), strides=(3, 1), kind="storage", dtype="FloatStorage") -> bytes:
    """Writes a pickle of {'w': a tensor}, opcode by opcode as torch 1 did."""
    shape, strides = (b"(" + b"".join(b"I%d\n" % n for n in numbers) + b"t" for numbers in (shape, strides))
    storage = b"(S'%s'\nctorch\n%s\nS'0'\nS'cpu'\nI%d\ntQ" % (kind.encode(), dtype.encode(), size)
    return b"(dS'w'\nctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"I%d\n" % offset + shape + strides + b"tRs."


def write_zip(path, pickled: bytes, stored: bytes = np.arange(6, dtype="<f4").tobytes(), **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", stored)
    return path


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_reads_what_torch_saved(path):
    arrays = read_state_dict(path)
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    expected = dict(whole=whole, turned=whole.T, part=whole[1, 1:, ::2], half=np.float16([0.5, -2]), count=np.int64(7))
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_a_file_cut_anywhere_is_refused(path, tmp_path):
    content = path.read_bytes()
    for length in [*range(0, len(content), 29), len(content) - 1]:
        (tmp_path / "cut.pth").write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a file of weights"):
            read_state_dict(tmp_path / "cut.pth")


def test_a_part_of_a_nested_dictionary_is_read(tmp_path):
    nested = b"(dS'ema'\n(dS'shadow'\n(l%sassS'step'\nI5\ns." % tensor()[len("(dS'w'\n") : -len("s.")]
    path = write_zip(tmp_path / "nested.pth", nested)
    (array,) = read_state_dict(path, ("ema", "shadow")).values()
    np.testing.assert_array_equal(array, np.arange(6, dtype=np.float32).reshape(2, 3))
    for part, problem in (
        ((), "its entry 'ema' is not a tensor"), (("ema",), "its entry 'shadow' is not a tensor"),
        (("model",), "it has no model"), (("ema", "shadow", "0"), "it has no ema/shadow/0"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=problem):
            read_state_dict(path, part)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("layout", ["legacy", "zip"])
def test_a_malicious_pickle_is_named_and_not_run(layout, tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "weights.pth"
    attack = pickle.dumps({"w": Attack(victim)})
    if layout == "zip":
        write_zip(path, attack)
    else:
        path.write_bytes(attack)
    with pytest.raises(ValueError, match=rf"asks for {os.system.__module__}\.system"):
        read_state_dict(path)
    assert not victim.exists()
    pickle.loads(attack)
    assert victim.exists()  # it would have been


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(shape=(3, 3)), "does not fit"),
        (dict(strides=(4, 1)), "does not fit"),
        (dict(offset=1), "does not fit"),
        (dict(size=7), "does not fit"),
        (dict(size=5), "does not fit"),
        (dict(shape=(10**9, 10**9), strides=(0, 0)), "does not fit"),
        (dict(offset=-1), "offset -1"),
        (dict(strides=(-3, 1)), "strides"),
        (dict(shape=(2,)), "shape"),
        (dict(kind="module"), "not a plain storage"),
        (dict(dtype="QInt8Storage"), "asks for torch.QInt8Storage"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(change, problem, tmp_path):
    good = read_state_dict(write_zip(tmp_path / "good.pth", tensor()))
    np.testing.assert_array_equal(good["w"], np.arange(6).reshape(2, 3))
    with pytest.raises(ValueError, match=problem):
        read_state_dict(write_zip(tmp_path / "bad.pth", tensor(**change)))


@pytest.mark.parametrize(
    ("saved", "problem"), [([1], "holds a list"), ({"step": 3}, "'step' is not a tensor"), ({1: {}}, "entry 1")]
)
def test_only_a_dictionary_of_tensors_is_read(saved, problem, tmp_path):
    with pytest.raises(ValueError, match=problem):
        read_state_dict(write_zip(tmp_path / "w.pth", pickle.dumps(saved)))


def test_a_compressed_archive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compressed"):
        read_state_dict(write_zip(tmp_path / "w.pth", tensor(), compression=zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("layout", ["legacy", "zip"])
@pytest.mark.parametrize("opcode", [b"p268435455\n", b"r\xff\xff\xff\x0f"])  # 4 GiB, in Python's unpickler
def test_a_pickle_that_asks_for_room_for_a_huge_number_of_objects_is_refused(layout, opcode, tmp_path):
    path = tmp_path / "w.pth"
    if layout == "zip":
        write_zip(path, b"}" + opcode + b".")
    else:
        path.write_bytes(b"}" + opcode + b".")
    with pytest.raises(ValueError, match="it numbers an object 268435455 after 1 bytes"):
        read_state_dict(path)


def test_an_encrypted_archive_is_refused(tmp_path):
    path = write_zip(tmp_path / "w.pth", tensor())
    content = bytearray(path.read_bytes())
    for start, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flags of the first file, in both of its headers
        content[content.index(start) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is encrypted"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:.*invalid")  # Python's, of damaged escapes in a pickled string
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda path: path.stem)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(layout, data, tmp_path_factory):
    content = bytearray(layout.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=8))
    path = tmp_path_factory.getbasetemp() / f"damaged_{layout.stem}.pth"
    path.write_bytes(content)
    try:
        arrays = read_state_dict(path)
    except ValueError:
        return
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
