import contextlib
import hashlib
import json
import logging
import os
import resource
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ddpm_jax import parallel
from ddpm_jax.runs import checkpoint
from ddpm_jax.timesteps import LossHistory
from ddpm_jax.training import TrainState


def make_state(step):
    params = {"layer": {"kernel": jnp.arange(6000.0).reshape(60, 100) + step, "bias": jnp.full(3, step / 7)}}
    return TrainState(
        step=jnp.asarray(step, jnp.int32),
        params=params,
        ema_params=jax.tree.map(lambda x: x * 0.5, params),
        opt_state=optax.adam(1e-3).init(params),
    )


LIKE = checkpoint.abstract(make_state(0), parallel.replicated())


to_close = []


def opened(folder, keep=2, keep_period=0):
    """Opens checkpoints that are closed after the test, if it does not do so itself."""
    to_close.append(checkpoint.Checkpoints(folder, keep=keep, keep_period=keep_period))
    return to_close[-1]


@pytest.fixture(autouse=True)
def closed():
    yield
    while to_close:
        to_close.pop().close()


@pytest.fixture
def folder(tmp_path):
    saved = opened(tmp_path / "checkpoints")
    for step in (10, 20):
        saved.save(make_state(step))
    saved.close()
    return tmp_path / "checkpoints"


@pytest.fixture
def warnings_said(caplog):
    return lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def assert_state(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_what_was_saved_comes_back_bit_for_bit(folder):
    assert_state(opened(folder).restore(LIKE), make_state(20))


def test_what_draws_timesteps_is_saved_and_comes_back(tmp_path):
    learned = LossHistory(losses=jnp.arange(20.0).reshape(2, 10), counts=jnp.array([10, 3]))
    state, saved = make_state(5).replace(timestep_state=learned), opened(tmp_path)
    saved.save(state)
    saved.close()
    assert_state(opened(tmp_path).restore(checkpoint.abstract(state, parallel.replicated())), state)


def test_further_averages_are_items_of_their_own(tmp_path):
    saved = opened(tmp_path / "checkpoints")
    for step in (10, 20):
        state = make_state(step)
        saved.save(state.replace(averages={"ema_0.9": jax.tree.map(lambda x: x * 0.25, state.params)}))
    saved.close()
    state = make_state(20)
    whole = state.replace(averages={"ema_0.9": jax.tree.map(lambda x: x * 0.25, state.params)})
    like = checkpoint.abstract(whole, parallel.replicated())
    assert_state(opened(tmp_path / "checkpoints").restore(like), whole)
    step, average = checkpoint.restore_weights(tmp_path / "checkpoints", "ema_0.9", like.params, step=10)
    assert_state(average, jax.tree.map(lambda x: x * 0.25, make_state(step).params))
    assert checkpoint.steps_with(tmp_path / "checkpoints", "ema_0.9", up_to=15) == [10]
    assert checkpoint.steps_with(tmp_path / "checkpoints", "ema_0.5", up_to=20) == []


def test_a_state_may_be_donated_while_it_is_saved(tmp_path):
    state, saved = parallel.replicate(make_state(5)), opened(tmp_path)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
    saved.save(state)
    jax.block_until_ready(overwrite(state))
    saved.close()
    assert_state(opened(tmp_path).restore(LIKE), make_state(5))


def test_the_newest_and_the_periodic_ones_are_kept(tmp_path):
    saved = opened(tmp_path, keep=2, keep_period=20)
    for step in range(10, 80, 10):
        saved.save(make_state(step))
    saved.close()
    assert saved.steps() == [20, 40, 60, 70]


def test_an_empty_folder_holds_nothing(tmp_path):
    assert opened(tmp_path).restore(LIKE) is None
    with pytest.raises(FileNotFoundError, match="There is no checkpoint in .*nowhere: train first"):
        checkpoint.restore_weights(tmp_path / "nowhere", "params", LIKE.params)


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff"])
def test_what_orbax_notes_beside_the_items_is_not_needed_and_its_damage_not_reported(folder, warnings_said, data):
    for step in (10, 20):
        (folder / str(step) / "_CHECKPOINT_METADATA").write_bytes(data)
    read = opened(folder)
    assert_state(read.restore(LIKE), make_state(20))
    read.close()
    assert warnings_said() == []


@contextlib.contextmanager
def no_room():
    """As on a full disk: no file can grow beyond 4 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("looked", ["wait", "check", "save"])
def test_a_save_that_fails_is_one_sentence_and_costs_no_older_checkpoint(tmp_path, capfd, looked):
    saved = opened(tmp_path, keep=1)
    saved.save(make_state(10))
    saved.wait()
    with no_room():
        saved.save(make_state(20))
        while saved._manager.is_saving_in_progress():
            pass
    with pytest.raises(checkpoint.SaveError, match=r"^The checkpoint of step 20 was not saved: File too large\.$"):
        saved.save(make_state(30)) if looked == "save" else getattr(saved, looked)()
    if looked != "save":
        assert saved.steps() == [10]
        saved.check()  # it is said once
        saved.save(make_state(30))
    saved.close()
    assert [path.name for path in tmp_path.iterdir()] == ["30"]
    assert_state(opened(tmp_path).restore(LIKE), make_state(30))
    assert "Traceback" not in capfd.readouterr().err


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    saved, usage = opened(tmp_path, keep=1), shutil.disk_usage(tmp_path)
    saved.save(make_state(10))
    size = sum(x.nbytes for x in jax.tree.leaves(make_state(20)))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size - 1))
    with pytest.raises(checkpoint.SaveError, match=r"step 20 was not saved: No space left on device \(it has 0.1 MiB"):
        saved.save(make_state(20))
    assert [path.name for path in tmp_path.iterdir()] == ["10"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size))
    saved.save(make_state(30))
    saved.close()
    assert saved.steps() == [30]


def damage_by_truncation(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_by_one_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_by_truncation, damage_by_one_bit, lambda path: path.unlink()])
def test_a_damaged_newest_checkpoint_is_named_set_aside_and_the_one_before_used(folder, warnings_said, damage):
    damage(largest_file(folder / "20"))
    saved = opened(folder)
    assert_state(saved.restore(LIKE), make_state(10))
    (said,) = warnings_said()
    assert f"{folder / '20'} cannot be read" in said
    assert "set aside as unreadable-20" in said
    assert saved.steps() == [10]
    assert (folder / "unreadable-20").is_dir()
    saved.save(make_state(20))  # the run comes by again
    saved.close()
    assert_state(opened(folder).restore(LIKE), make_state(20))


@pytest.mark.parametrize("name", ["../../{}", "params/../../../{}", "{parent}/{}", "params/link"])
def test_checksums_that_name_a_file_outside_are_damage_and_it_is_not_opened(folder, warnings_said, name):
    """Not even one with the right checksum, nor a pipe, which would block."""
    secret, pipe = folder.parent / "secret", folder.parent / "pipe"
    secret.write_text("secret")
    os.mkfifo(pipe)
    for target in (secret, pipe):
        link = folder / "20" / "params" / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        checksums = json.loads((folder / "20" / "checksums.json").read_text())
        checksums[name.format(target.name, parent=folder.parent)] = hashlib.sha256(b"secret").hexdigest()
        (folder / "20" / "checksums.json").write_text(json.dumps(checksums))
        with pytest.raises(checkpoint.UnreadableError, match=r"none can be read"):
            checkpoint.restore_weights(folder, "params", LIKE.params, step=20)
    assert all("which lies outside" in said for said in warnings_said() if "20" in said)
    assert checkpoint.restore_weights(folder, "params", LIKE.params)[0] == 10


@pytest.mark.parametrize("checksums", ["", "[]", '{"params/": 3}', '{"params/x": null}', "3"])
def test_checksums_that_are_none_are_damage(folder, checksums):
    (folder / "20" / "checksums.json").write_text(checksums)
    assert checkpoint.restore_weights(folder, "params", LIKE.params)[0] == 10


def test_a_save_that_was_killed_half_way_is_no_checkpoint(folder):
    shutil.copytree(folder / "20", folder / "30.orbax-checkpoint-tmp")
    assert_state(opened(folder).restore(LIKE), make_state(20))
    assert not (folder / "30.orbax-checkpoint-tmp").exists()


def test_starting_from_scratch_over_damaged_checkpoints_is_refused(folder):
    for step in ("10", "20"):
        damage_by_truncation(largest_file(folder / step))
    for _ in range(2):  # also when they were set aside before
        with pytest.raises(ValueError, match="unreadable-10, unreadable-20.*another --workdir"):
            opened(folder).restore(LIKE)


def test_weights_are_read_alone_and_nothing_is_changed(folder, warnings_said):
    files = sorted(folder.rglob("*"))
    for name in ("params", "ema_params"):
        step, weights = checkpoint.restore_weights(folder, name, getattr(LIKE, name))
        assert step == 20
        assert_state(weights, getattr(make_state(20), name))
    step, weights = checkpoint.restore_weights(folder, "params", LIKE.params, step=10)
    assert_state(weights, make_state(10).params)
    assert sorted(folder.rglob("*")) == files
    assert not warnings_said()
    damage_by_one_bit(largest_file(folder / "20" / "ema_params"))
    step, weights = checkpoint.restore_weights(folder, "ema_params", LIKE.ema_params)
    assert (step, len(warnings_said())) == (10, 1)
    with pytest.raises(checkpoint.UnreadableError, match=r"Of the checkpoints \[20\].*none can be read"):
        checkpoint.restore_weights(folder, "ema_params", LIKE.ema_params, step=20)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 15 in .*; there are \[10, 20\]"):
        checkpoint.restore_weights(folder, "params", LIKE.params, step=15)


def other_network():
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(tuple(n + 1 for n in x.shape), x.dtype, sharding=x.sharding), LIKE
    )


@contextlib.contextmanager
def few_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        lowest_free = stack.enter_context(open(os.devnull)).fileno()
        stack.enter_context(open(os.devnull))
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield


def no_memory(*_):
    raise MemoryError


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (
            "network",
            r".*layer/kernel has shape \[60, 100\], not \[61, 101\].*, "
            "so it is of another network than config.json describes .*",
        ),
        ("tree", "missing: other, so it is of another network than config.json describes .*"),
        ("files", "Too many open files"),
        ("memory", "MemoryError"),
    ],
)
def test_a_whole_checkpoint_that_cannot_be_restored_stays_and_the_reason_is_one_sentence(
    folder, monkeypatch, warnings_said, cause, reason
):
    saved, like, limit = opened(folder), LIKE, contextlib.nullcontext()
    if cause == "network":
        like = other_network()
    elif cause == "tree":
        like = LIKE.replace(params=LIKE.params | {"other": LIKE.step})
    elif cause == "files":
        limit = few_files()
    if cause != "files":  # what does not fit is refused before anything is read
        monkeypatch.setattr(checkpoint.ocp.StandardCheckpointer, "restore", no_memory)
    message = rf"^The checkpoint {folder / '20'} was not restored, and is left as it is: {reason}\.$"
    with limit, pytest.raises(checkpoint.RestoreError, match=message):
        saved.restore(like)
    if cause != "files":  # there it cannot even list them
        with pytest.raises(checkpoint.RestoreError, match=message):
            checkpoint.restore_weights(folder, "params", like.params)
    assert sorted(path.name for path in folder.iterdir()) == ["10", "20"]
    assert not warnings_said()
    monkeypatch.undo()
    assert_state(saved.restore(LIKE), make_state(20))


def test_a_checkpoint_that_is_set_aside_twice_gets_a_free_name(folder, warnings_said):
    for _ in range(3):
        damage_by_one_bit(largest_file(folder / "20"))
        saved = opened(folder)
        assert_state(saved.restore(LIKE), make_state(10))
        saved.save(make_state(20))
        saved.close()
    names = ["unreadable-20", "unreadable-20-2", "unreadable-20-3"]
    assert sorted(path.name for path in folder.glob("unreadable-*")) == names
    assert [said.split()[-1] for said in warnings_said()] == [f"{name}." for name in names]


def test_a_listing_that_misses_everything_is_repeated(folder, monkeypatch):
    listed, glob = [], type(folder).glob
    monkeypatch.setattr(type(folder), "glob", lambda *args: listed.append(args) or (glob(*args) if listed[1:] else []))
    assert checkpoint.restore_weights(folder, "params", LIKE.params)[0] == 20
    assert len(listed) == 2
