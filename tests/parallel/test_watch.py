"""The watch over the other processes, both ends in one process; tests/e2e/test_processes.py kills real ones."""

import contextlib
import socket
import threading

import jax
import pytest

from ddpm_jax.parallel import processes, watch
from ddpm_jax.runtime import sockets


@pytest.fixture
def pair(monkeypatch):
    """The watches of process 0 and 1; a stranger connects first."""
    monkeypatch.setattr(watch, "_NEWS_S", 0.2)
    ended = []
    monkeypatch.setattr(watch.os, "_exit", ended.append)
    server, made = sockets.listen(0, backlog=4), []
    address = ("localhost", server.getsockname()[1])
    settings = dict(num_processes=2, address=address)
    first = threading.Thread(target=lambda: made.append(watch.PeerWatch(process=0, server=server, **settings)))
    first.start()
    with socket.create_connection(address) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n")
    other = watch.PeerWatch(process=1, server=None, **settings)
    first.join(timeout=30)
    yield made[0], other, ended
    for end in (made[0], other):
        end.finish()
        for connection in end._connections.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def test_a_stranger_is_ignored_and_an_orderly_end_is_no_loss(pair):
    primary, other, ended = pair
    other.finish()
    assert not primary.wait_for_loss()
    primary.finish()
    assert not other.wait_for_loss()
    assert ended == []


def test_a_connection_that_ends_without_a_word_is_a_loss(pair, monkeypatch, capfd):
    primary, other, ended = pair
    monkeypatch.setattr(watch, "_GRACE_S", 0.1)
    for connection in other._connections.values():
        connection.shutdown(socket.SHUT_RDWR)
    assert primary.wait_for_loss()
    assert 1 in ended
    assert "Lost another process, number 1: start all again" in capfd.readouterr().err


def test_a_process_that_has_failed_itself_reports_its_own_error(pair, monkeypatch, capfd):
    primary, other, ended = pair
    monkeypatch.setattr(watch, "_GRACE_S", 1.0)  # beside which what `stop` waits for is short
    primary.stop()
    other.stop()
    assert primary.wait_for_loss()
    assert ended == []
    assert "Lost another process" not in capfd.readouterr().err


def test_process_0_leaves_after_those_that_fail_with_it(pair, monkeypatch):
    """JAX's coordinator, which ends with it, would end them by SIGABRT."""
    primary, other, ended = pair
    monkeypatch.setattr(watch, "_NEWS_S", 60.0)
    left, asked = [], threading.Event()

    def leave():
        asked.wait()
        other.stop()
        other.wait_for_others()  # it waits for nobody
        left.append(1)
        for connection in other._connections.values():
            connection.shutdown(socket.SHUT_RDWR)

    thread = threading.Thread(target=leave)
    thread.start()
    primary.stop()
    asked.set()
    primary.wait_for_others()
    assert left == [1]
    assert ended == []
    thread.join()


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError, ValueError])
def test_a_process_that_ends_before_it_is_watched_is_a_loss_in_one_sentence(monkeypatch, error):
    def gather(_):
        raise error("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:9412\nand more")

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(processes.multihost_utils, "process_allgather", gather)
    with pytest.raises(processes.ProcessError, match=r"^Lost another process while they met: start all again.*\.$"):
        processes.watch_peers("localhost:1")
