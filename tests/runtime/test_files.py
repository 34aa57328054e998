import errno
import os
import resource

import pytest

from ddpm_jax.runtime import files


def test_a_file_is_on_the_disk_before_its_name_is_and_its_name_before_the_work_goes_on(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    files.write_atomically(tmp_path / "a.json", "new")
    assert calls == [str(tmp_path / ".a.json.unfinished"), "replace", str(tmp_path)]
    assert (tmp_path / "a.json").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_what_was_there_stays_when_writing_fails(tmp_path, error):
    (tmp_path / "a.bin").write_text("old")

    def write():
        with files.atomically(tmp_path / "a.bin") as unfinished:
            unfinished.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_full_disk_is_said_with_the_file_s_name(tmp_path):
    message = r"a.bin was not written: No space left on device\."
    with pytest.raises(OSError, match=message), files.atomically(tmp_path / "a.bin"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def locked(folder, **more):
    return files.locked(folder / "lock", problem="X is in use by another", way_out="go away", **more)


def test_a_lock_keeps_others_out_while_it_is_held(tmp_path):
    refused = rf"X is in use by another, process {os.getpid()} on .+: wait until it ends, stop it, or go away\."
    with locked(tmp_path):
        with pytest.raises(ValueError, match=refused), locked(tmp_path):
            pass
        with locked(tmp_path, reentrant=True):
            pass
        with pytest.raises(ValueError, match=refused), locked(tmp_path):
            pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("limits", "raised"),
    [((1024, 4096), None), ((-1, -1), None), ((20, 128), (128, 128)), ((20, -1), (128, -1)), ((127, 500), (128, 500))],
)
def test_as_many_files_may_be_open_as_are_needed(monkeypatch, limits, raised):
    set_to = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: set_to.append(new))
    files.allow_open(128)
    assert set_to == ([raised] if raised else [])


def test_too_few_open_files_are_said_before_any_work(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (20, 60))
    with pytest.raises(ValueError, match="128 files are open at a time, and 60 may be: allow more .ulimit -n 128"):
        files.allow_open(128)
