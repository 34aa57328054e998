"""Process 0 meets the others on the coordinator's own port, over plain TCP and with the standard library alone.

JAX's runtime needs everybody before it says anything; here those who came are known when one does not come. As JAX
has not started yet its port is free, and what is tried is what its traffic will need. The messages are lines of JSON:

    other -> 0   its facts                    0 -> other   {"marker": the path of a file that process 0 has made}
    other -> 0   its clock, what it found     0 -> other   {"problems": [...]} when all have come, or time is up
"""

import contextlib
import dataclasses
import json
import secrets
import socket
import time
import typing
from pathlib import Path
from typing import Any

from ddpm_jax.doctor import diagnosis, facts
from ddpm_jax.doctor.diagnosis import Examined
from ddpm_jax.doctor.facts import Facts

_MAX_LINE = 2**20
_INTERVIEW_S = 20.0  # for one process and its disk; a stranger on the port costs no more


class MeetingError(Exception):
    """This process cannot come to the meeting; the message says why and what to look at."""


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT as the two.

    Raises:
        MeetingError: if it is not that.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise MeetingError(f"--coordinator_address={address!r} must be HOST:PORT, such as 10.0.0.2:8476.")
    return host.strip("[]"), int(port)


def hold(own: Facts, *, address: str, timeout_s: float, max_skew_s: float) -> tuple[list[Examined], list[str]]:
    """Process 0's part: waits for the others, and tells all what is wrong.

    Returns:
        Those who came, in the order of their numbers, and the problems.

    Raises:
        MeetingError: if it cannot listen.
    """
    deadline = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(split_address(address)[1], backlog=own.num_processes))
        marker, problem = _make_marker(own.folder, stack)
        came = [Examined(own, 0.0, problem)]
        connections = []
        while len(came) < own.num_processes and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # late, a stranger, or gone again
                connection = stack.enter_context(server.accept()[0])
                came.append(_examine(connection, marker=marker))
                connections.append(connection)
        came.sort(key=lambda each: each.facts.process)
        problems = diagnosis.problems(
            came, num_processes=own.num_processes, max_skew_s=max_skew_s, meeting_place=address
        )
        for connection in connections:
            with contextlib.suppress(OSError):
                _send(connection, {"problems": problems})
        for connection in connections:  # they close first: this end's port stays free for JAX
            with contextlib.suppress(OSError):
                connection.recv(1)
    return came, problems


def attend(own: Facts, *, address: str, timeout_s: float) -> list[str]:
    """Another process's part: comes to process 0 and waits for what it says.

    Returns:
        The problems.

    Raises:
        MeetingError: if it cannot reach process 0, or hears nothing more of it.
    """
    with _connect(address, timeout_s=timeout_s) as connection:
        connection.settimeout(timeout_s + _INTERVIEW_S)
        try:
            _send(connection, dataclasses.asdict(own))
            marker = _receive(connection)["marker"]
            now = time.time()  # before looking at the disk, which may be slow
            _send(connection, {"time": now, "problem": _look(own, marker)})
            return _receive(connection)["problems"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise MeetingError(
                f"{own.name} reached {address}, but what answers there is not process 0 of this command, or it ended "
                f"({type(error).__name__}): is another program on that port?"
            ) from error


def _listen(port: int, *, backlog: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog)
        return socket.create_server(("", port), backlog=backlog)
    except OSError as error:
        raise MeetingError(
            f"Process 0 cannot listen on port {port}: {error.strerror}. Is a run going on, or choose another port."
        ) from error


def _make_marker(folder: str, stack: contextlib.ExitStack) -> tuple[str, str]:
    """Makes a file that the others should see, deleted when the stack is left: its path, and what went wrong."""
    if not folder:
        return "", ""
    path = Path(folder) / f".doctor-{secrets.token_hex(8)}"
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        return "", f"cannot write in {folder}: {error.strerror}"
    stack.callback(path.unlink, missing_ok=True)
    return str(path), ""


def _examine(connection: socket.socket, *, marker: str) -> Examined:
    connection.settimeout(_INTERVIEW_S)
    told = Facts(**_receive(connection))
    for field in dataclasses.fields(Facts):
        if type(getattr(told, field.name)) is not (typing.get_origin(field.type) or field.type):
            raise TypeError(f"{field.name} is not of its type")
    asked = time.time()
    _send(connection, {"marker": marker})
    answer = _receive(connection)
    skew_s = answer["time"] - asked  # and the milliseconds of the way there
    return Examined(told, float(skew_s), str(answer["problem"]))


def _look(own: Facts, marker: str) -> str:
    if not own.folder or not marker:
        return ""
    if not Path(marker).exists():
        return f"does not see {marker}, which process 0 has just made: --workdir is not one shared folder"
    return facts.write_marker(own.folder, f"{Path(marker).name}-{own.process}")


def _connect(address: str, *, timeout_s: float) -> socket.socket:
    place, deadline = split_address(address), time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection(place, timeout=max(0.1, deadline - time.monotonic()))
        except socket.gaierror as error:
            problem, hint = error, "The name is not known here: give an address that all hosts can resolve."
        except TimeoutError as error:
            # https://github.com/jax-ml/jax/issues/35905
            problem, hint = (
                error,
                (
                    "Nothing answers at all: a firewall, most likely, or the wrong address. Cloud TPU's own firewall "
                    "rules let 8476 in, and not always 8482, which JAX uses there by itself."
                ),
            )
        except ConnectionRefusedError as error:
            problem, hint = error, "The host is there, but nothing listens: is process 0 started, and that its host?"
        except OSError as error:
            problem, hint = error, "There is no way to that host from here."
        if time.monotonic() + 0.5 > deadline:
            raise MeetingError(
                f"Cannot reach process 0 at {address} within {timeout_s:g} s ({problem.strerror or problem}). {hint} "
                "All hosts must be able to connect to that port of process 0's host, and its firewall must let it in."
            ) from problem
        time.sleep(0.5)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(2**16)
        if not piece or len(line) > _MAX_LINE:
            raise ValueError("not a line of JSON")
        line += piece
    return json.loads(line)
