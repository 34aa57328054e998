import json
import os
import shutil

import pytest

from ddpm_jax.runs import checksums


@pytest.fixture
def folder(tmp_path):
    for name in ("params/d/1", "params/d/2", "params/index", "ema_params/d/1", "of_the_whole"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    checksums.write(tmp_path)
    (tmp_path / "written_later").touch()  # beside the items, by Orbax
    return tmp_path


def refused(folder, message, item="params"):
    with pytest.raises(checksums.DamagedError, match=message):
        checksums.verify(folder, items=["ema_params", item])


def test_what_was_written_verifies(folder):
    checksums.verify(folder, items=["params", "ema_params"])


def test_a_file_that_is_changed_missing_or_more_is_damage_of_its_item_alone(folder):
    (folder / "params" / "d" / "2").write_text("changed")
    refused(folder, "^params/d/2 is damaged$")
    (folder / "params" / "d" / "2").unlink()
    refused(folder, "^params/d/2 is missing, or checksums.json does not list it$")
    (folder / "params" / "d" / "2").write_text("params/d/2")
    (folder / "params" / "e").mkdir()
    os.mkfifo(folder / "params" / "e" / "pipe")  # to open it would block for ever
    refused(folder, "^params/e/pipe is missing, or checksums.json does not list it$")
    shutil.rmtree(folder / "params")
    refused(folder, "^params/.* is missing")
    checksums.verify(folder, items=["ema_params"])


@pytest.mark.parametrize(
    "change",
    [
        lambda known: {},
        lambda known: {name: digest for name, digest in known.items() if "/d/" not in name},
        lambda known: {name: digest for name, digest in known.items() if not name.startswith("params/")},
        lambda known: known | {"params/more": "00"},
    ],
    ids=["empty", "without the arrays", "without an item", "of a file that is missing"],
)
def test_checksums_of_some_files_verify_nothing(folder, change):
    path = folder / "checksums.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(folder, r"^(params|ema_params)/.* is missing, or checksums.json does not list it$")


def test_an_item_of_no_files_verifies_nothing(folder):
    refused(folder, "^optimizer is missing, or checksums.json does not list it$", item="optimizer")


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"null", b"\xff", b"[" * 60_000, b'{"a\\u0000": 1}'])
def test_checksums_that_are_none_are_damage(folder, text):
    (folder / "checksums.json").write_bytes(text)
    refused(folder, "^checksums.json is damaged$")
    (folder / "checksums.json").unlink()
    refused(folder, "^it has no checksums.json$")


def test_files_that_cannot_be_read_are_no_damage(folder, monkeypatch):
    def failing(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="Too many open files"):
        checksums.verify(folder, items=["params"])
