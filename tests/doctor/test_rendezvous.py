"""Process 0 and another connect, in two threads of one process; e2e/test_doctor.py has them in two."""

import concurrent.futures
import dataclasses
import json
import socket

import portpicker
import pytest

from ddpm_jax.doctor import diagnosis, rendezvous
from ddpm_jax.doctor.report import check_folder, make_report


def connect(tmp_path, other, *, before=lambda address: None, timeout_s=20.0):
    """Returns the reports that process 0 received, and the problems."""
    address = f"localhost:{portpicker.pick_unused_port()}"
    own = make_report(process=0, num_processes=2, workdir=str(tmp_path), facts={})
    reports = []

    def diagnose(received):
        reports.extend(received)
        return diagnosis.problems(received, max_skew_s=2.0, address=address)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        served = pool.submit(rendezvous.serve, own, address=address, timeout_s=timeout_s, diagnose=diagnose)
        before(address)
        joined = rendezvous.join(other, address=address, timeout_s=timeout_s)
        problems = served.result()
    assert joined == problems
    return reports, problems


@pytest.fixture
def other(tmp_path):
    return make_report(process=1, num_processes=2, workdir=str(tmp_path / "run"), facts={})  # not made yet


def test_two_connect_and_leave_nothing_behind(tmp_path, other):
    reports, problems = connect(tmp_path, other)
    assert problems == []
    assert [report.process for report in reports] == [0, 1]
    assert dataclasses.replace(reports[1], skew_s=other.skew_s) == other
    assert abs(reports[1].skew_s) < 2.0
    assert list(tmp_path.iterdir()) == []


def test_both_receive_the_problems(tmp_path, other):
    versions = other.versions | {"jax": "0.0.1"}
    _, problems = connect(tmp_path, dataclasses.replace(other, versions=versions))
    (problem,) = problems
    assert problem.startswith(f"{other.name} has jax 0.0.1, process 0")


def test_a_clock_that_is_off_is_noticed(tmp_path, other, monkeypatch):
    clock = rendezvous.time.time
    calls = iter([0.0, 60.0])  # process 0 sends its time, then the other reads its own clock
    monkeypatch.setattr(rendezvous.time, "time", lambda: clock() + next(calls))
    reports, (problem,) = connect(tmp_path, other)
    assert reports[1].skew_s == pytest.approx(60.0, abs=2.0)
    assert "clock of process 1" in problem


def test_strangers_on_the_port_do_no_harm(tmp_path, other):
    def knock(address):
        claim = json.dumps(dataclasses.asdict(other) | {"process": "1"}).encode() + b"\n"
        deep = b"[" * 100_000 + b"\n"
        for message in (b"", b"GET / HTTP/1.1\r\n\r\n", b"[1, 2]\n", b'{"process": 1}\n', deep, claim):
            with rendezvous._connect(address, timeout_s=10.0) as stranger:
                stranger.sendall(message)

    assert connect(tmp_path, other, before=knock)[1] == []


def test_a_second_message_cannot_change_the_type_of_a_field(tmp_path, other):
    def knock(address):
        with rendezvous._connect(address, timeout_s=10.0) as stranger:
            rendezvous._send(stranger, dataclasses.asdict(other))
            rendezvous._receive(stranger)
            rendezvous._send(stranger, {"skew_s": "1.0"})

    reports, problems = connect(tmp_path, other, before=knock)
    assert (len(reports), problems) == (2, [])


def test_a_folder_that_is_not_shared_or_not_writable_is_named(tmp_path):
    folder = str(tmp_path)
    assert check_folder(folder, marker=str(tmp_path / "not there")).startswith("does not see")
    (tmp_path / "there").touch()
    assert check_folder(folder, marker=str(tmp_path / "there")) == ""
    assert check_folder("/proc", marker=str(tmp_path / "there")).startswith("cannot write in /proc")
    assert check_folder("", marker=str(tmp_path / "not there")) == ""


def test_a_folder_that_is_not_shared_is_a_problem_of_the_other(tmp_path, other, monkeypatch):
    monkeypatch.setattr(rendezvous, "check_folder", lambda folder, marker: check_folder(folder, marker=marker + "x"))
    _, (problem,) = connect(tmp_path, other)
    assert problem.startswith(f"{other.name}: does not see {tmp_path}")
    assert problem.endswith("--workdir is not one shared folder.")


@pytest.mark.parametrize("address", ["host", ":1", "host:", "host:0", "host:65536", "host:port"])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        rendezvous.split_address(address)


def test_an_address_of_ipv6():
    assert rendezvous.split_address("[fd00::1]:8476") == ("fd00::1", 8476)


def test_why_process_0_cannot_be_reached_is_reported(other):
    address = f"localhost:{portpicker.pick_unused_port()}"
    with pytest.raises(ConnectionError, match=r"within 0\.6 s .*nothing listens: is process 0 started"):
        rendezvous.join(other, address=address, timeout_s=0.6)
    with pytest.raises(ConnectionError, match="The name is not known here"):
        rendezvous.join(other, address="no-such-host.invalid:1234", timeout_s=0.2)
    with socket.create_server(("localhost", 0)) as server:  # which never answers
        address = f"localhost:{server.getsockname()[1]}"
        with pytest.raises(OSError, match="cannot listen on port"):
            rendezvous.serve(dataclasses.replace(other, process=0), address=address, timeout_s=1.0, diagnose=list)
