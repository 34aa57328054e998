"""array_record files that are missing or damaged are named, when the data set is opened or as they are read."""

import pytest
from test_data import _load_tfds, _write_tfds

SHARD = "toy-train.array_record-00001-of-00002"


def test_a_missing_shard_is_named_before_anything_is_read(tmp_path):
    _write_tfds(tmp_path)
    (tmp_path / "toy" / "1.0.0" / SHARD).unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of the 2 files of 'toy' train are missing .first: '.*{SHARD}'"):
        _load_tfds("toy", tmp_path)
    assert len(_load_tfds("toy", tmp_path, split="train[:10]")) == 10  # of the other shard alone
    assert len(_load_tfds("toy", tmp_path, split="test")) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "half", "last byte", "flipped"])
def test_a_damaged_shard_is_refused_in_one_sentence_that_says_where(tmp_path, damage):
    _write_tfds(tmp_path)
    path = tmp_path / "toy" / "1.0.0" / SHARD
    whole = bytearray(path.read_bytes())
    if damage == "flipped":
        whole[100] ^= 255
    else:
        del whole[{"empty": 0, "cut": 10, "half": len(whole) // 2, "last byte": -1}[damage] :]
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"toy/1.0.0' cannot be read at image 1\d\d of train \(.") as caught:
        _load_tfds("toy", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_description_is_refused_in_one_sentence(tmp_path):
    _write_tfds(tmp_path)
    (tmp_path / "toy" / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(ValueError, match="TFDS cannot open 'toy': ") as caught:
        _load_tfds("toy", tmp_path)
    assert "\n" not in str(caught.value)
