import errno
import os

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
