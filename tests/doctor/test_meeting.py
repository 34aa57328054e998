"""Process 0 and another meet, in two threads of one process; e2e/test_doctor.py has them in two."""

import concurrent.futures
import dataclasses
import json
import socket

import portpicker
import pytest

from ddpm_jax.doctor import facts, meeting


def meet(tmp_path, other, *, before=lambda address: None, timeout_s=20.0):
    address = f"localhost:{portpicker.pick_unused_port()}"
    own = facts.gather(process=0, num_processes=2, workdir=str(tmp_path))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(meeting.hold, own, address=address, timeout_s=timeout_s, max_skew_s=2.0)
        before(address)
        told = meeting.attend(other, address=address, timeout_s=timeout_s)
        came, problems = held.result()
    assert told == problems
    return came, problems


@pytest.fixture
def other(tmp_path):
    return facts.gather(process=1, num_processes=2, workdir=str(tmp_path / "run"))  # not made yet


def test_two_meet_and_leave_nothing_behind(tmp_path, other):
    came, problems = meet(tmp_path, other)
    assert problems == []
    assert [each.facts.process for each in came] == [0, 1]
    assert came[1].facts == other
    assert abs(came[1].skew_s) < 2.0
    assert list(tmp_path.iterdir()) == []


def test_both_hear_what_is_wrong(tmp_path, other):
    versions = other.versions | {"jax": "0.0.1"}
    _, problems = meet(tmp_path, dataclasses.replace(other, versions=versions))
    (problem,) = problems
    assert problem.startswith(f"{other.name} has jax 0.0.1, process 0")


def test_a_clock_that_is_off_is_noticed(tmp_path, other, monkeypatch):
    clock = meeting.time.time
    calls = iter([0.0, 60.0])  # process 0 asks, then the other looks at its own clock
    monkeypatch.setattr(meeting.time, "time", lambda: clock() + next(calls))
    came, (problem,) = meet(tmp_path, other)
    assert came[1].skew_s == pytest.approx(60.0, abs=2.0)
    assert "clock of process 1" in problem


def test_strangers_on_the_port_do_no_harm(tmp_path, other):
    def knock(address):
        claim = json.dumps(dataclasses.asdict(other) | {"process": "1"}).encode() + b"\n"
        for message in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[1, 2]\n", b'{"process": 1}\n', claim):
            with meeting._connect(address, timeout_s=10.0) as stranger:
                stranger.sendall(message)

    assert meet(tmp_path, other, before=knock)[1] == []


def test_a_folder_that_is_not_shared_or_not_writable_is_said(tmp_path, other):
    assert meeting._look(other, str(tmp_path / "not there")).startswith("does not see")
    (tmp_path / "there").touch()
    assert meeting._look(other, str(tmp_path / "there")) == ""
    assert meeting._look(dataclasses.replace(other, folder="/proc"), str(tmp_path / "there")).startswith(
        "cannot write in /proc"
    )


@pytest.mark.parametrize("address", ["host", ":1", "host:", "host:0", "host:65536", "host:port"])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(meeting.MeetingError, match="must be HOST:PORT"):
        meeting.split_address(address)


def test_an_address_of_ipv6():
    assert meeting.split_address("[fd00::1]:8476") == ("fd00::1", 8476)


def test_why_process_0_cannot_be_reached_is_said(other):
    address = f"localhost:{portpicker.pick_unused_port()}"
    with pytest.raises(meeting.MeetingError, match=r"within 0\.6 s .*nothing listens: is process 0 started"):
        meeting.attend(other, address=address, timeout_s=0.6)
    with pytest.raises(meeting.MeetingError, match="The name is not known here"):
        meeting.attend(other, address="no-such-host.invalid:1234", timeout_s=0.2)
    with socket.create_server(("localhost", 0)) as server:  # which never answers
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(meeting.MeetingError, match="cannot listen on port"):
            meeting.hold(dataclasses.replace(other, process=0), address=address, timeout_s=1.0, max_skew_s=1.0)
