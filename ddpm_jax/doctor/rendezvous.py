"""Sends the reports of all processes to process 0, over plain TCP and on the port of JAX's coordinator.

JAX's runtime says nothing until all processes have connected; this tells which have. As JAX has not started yet, its
port is free, and the connections tried are those that JAX will need. The messages are lines of JSON:

    other -> 0   its report                              0 -> other   {"marker": a file of 0's, "time": 0's clock}
    other -> 0   {"skew_s": ..., "folder_problem": ...}  0 -> other   {"problems": [...]}, when all have reported
"""

import contextlib
import dataclasses
import json
import logging
import socket
import tempfile
import time
import typing
from collections.abc import Callable, Sequence
from typing import Any

from ddpm_jax.doctor.report import MARKER, Report, check_folder
from ddpm_jax.runtime import sockets

_log = logging.getLogger(__name__)
_MAX_BYTES = 2**20  # of a message
_EXCHANGE_S = 20.0  # for one process and its disk; a stranger on the port costs no more
_BAD_MESSAGE = (OSError, ValueError, TypeError, KeyError, RecursionError)  # late, from a stranger, or cut off
_HINTS = {  # the first that fits
    socket.gaierror: "The name is not known here: give an address that all hosts can resolve.",
    # https://github.com/jax-ml/jax/issues/35905
    TimeoutError: "Nothing answers: most likely a firewall, or the wrong address. Cloud TPU's own firewall rules allow "
    "port 8476, but not always 8482, which JAX uses there by default.",
    ConnectionRefusedError: "The host answers, but nothing listens: is process 0 started, and is that its host?",
    OSError: "There is no route to that host from here.",
}


def split_address(address: str) -> tuple[str, int]:
    """Splits HOST:PORT.

    Raises:
        ValueError: if it is not that.
    """
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(f"--coordinator_address={address!r} must be HOST:PORT, such as 10.0.0.2:8476.")
    return host.strip("[]"), int(port)


def serve(
    own: Report, *, address: str, timeout_s: float, diagnose: Callable[[Sequence[Report]], list[str]]
) -> list[str]:
    """Receives the reports of the processes that connect within `timeout_s`, and sends the problems to them.

    Returns:
        The problems: what `diagnose` returns for the reports, which it receives in the order of their numbers.

    Raises:
        OSError: if this process, number 0, cannot listen; the message says why.
        ValueError: if the address is not HOST:PORT.
    """
    _log.info("  waiting for the others at %s, for up to %g s", address, timeout_s)
    deadline = time.monotonic() + timeout_s
    reports, connections = [own], []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(split_address(address)[1], backlog=own.num_processes))
        marker = ""
        if own.folder and not own.folder_problem:
            marker = stack.enter_context(tempfile.NamedTemporaryFile(prefix=MARKER, dir=own.folder)).name
        while len(reports) < own.num_processes and (left := deadline - time.monotonic()) > 0:
            server.settimeout(left)
            with contextlib.suppress(*_BAD_MESSAGE):
                connection = stack.enter_context(server.accept()[0])
                reports.append(_receive_report(connection, marker=marker))
                connections.append(connection)
                _log.info("  connected: %s, clock %+.2f s", reports[-1].name, reports[-1].skew_s)
        problems = diagnose(sorted(reports, key=lambda report: report.process))
        for connection in connections:
            with contextlib.suppress(OSError):
                _send(connection, {"problems": problems})
        for connection in connections:  # the others close first: this end's port stays free for JAX
            with contextlib.suppress(OSError):
                connection.recv(1)
    return problems


def join(own: Report, *, address: str, timeout_s: float) -> list[str]:
    """Sends the report of this process to process 0 and returns the problems of the run.

    Raises:
        OSError: if it cannot connect or receives no valid answer; the message says why and what to check.
        ValueError: if the address is not HOST:PORT.
    """
    _log.info("  connecting to process 0 at %s, for up to %g s", address, timeout_s)
    with _connect(address, timeout_s=timeout_s) as connection:
        connection.settimeout(timeout_s + _EXCHANGE_S)
        try:
            _send(connection, dataclasses.asdict(own))
            answer = _receive(connection)
            skew_s = time.time() - answer["time"]  # before the folder check, which may be slow
            _send(connection, {"skew_s": skew_s, "folder_problem": check_folder(own.folder, marker=answer["marker"])})
            return _receive(connection)["problems"]
        except _BAD_MESSAGE as error:
            raise ConnectionError(
                f"{own.name} connected to {address}, but got no valid answer ({type(error).__name__}): is another "
                "program on that port, or has process 0 ended?"
            ) from error


def _listen(port: int, *, backlog: int) -> socket.socket:
    try:
        return sockets.listen(port, backlog=backlog)
    except OSError as error:
        raise OSError(
            f"Process 0 cannot listen on port {port}: {error.strerror}. End the program that uses it, or choose "
            "another port."
        ) from error


def _receive_report(connection: socket.socket, *, marker: str) -> Report:
    connection.settimeout(_EXCHANGE_S)
    report = _parse_report(_receive(connection))
    _send(connection, {"marker": marker, "time": time.time()})
    return _parse_report(dataclasses.asdict(report) | _receive(connection))


def _parse_report(values: dict[str, Any]) -> Report:
    """Parses a report that another process sent, or raises TypeError."""
    report = Report(**values)
    for field in dataclasses.fields(Report):
        if type(getattr(report, field.name)) is not (typing.get_origin(field.type) or field.type):
            raise TypeError(f"{field.name} has the wrong type")
    return report


def _connect(address: str, *, timeout_s: float) -> socket.socket:
    host_and_port, deadline = split_address(address), time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection(host_and_port, timeout=max(0.1, deadline - time.monotonic()))
        except OSError as error:
            if time.monotonic() + 0.5 > deadline:
                hint = next(hint for kind, hint in _HINTS.items() if isinstance(error, kind))
                raise ConnectionError(
                    f"Cannot reach process 0 at {address} within {timeout_s:g} s ({error.strerror or error}). {hint} "
                    "All hosts must be able to connect to that port of process 0's host, through its firewall."
                ) from error
        time.sleep(0.5)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any]:
    with connection.makefile("rb") as lines:
        return json.loads(lines.readline(_MAX_BYTES))
