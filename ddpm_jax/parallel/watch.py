"""Notices at once when another process of the run ends without a word, over one TCP connection to process 0 each.

JAX's own runtime notices by heartbeats, after many seconds, and ends the process with SIGABRT and a C++ stack. The
kernel closes the connections of a process that ends, however it ends. Where no connection can be made, JAX's
heartbeats remain.
"""

import contextlib
import os
import socket
import threading
import time

_CONNECT_S = 5.0
_NEWS_S = 3.0  # which the news of a lost process may take
_GRACE_S = 1.0  # for an error that all processes raise alike, and report themselves
_DONE, _FAILED, _LOST = b"done\n", b"failed\n", b"lost "


class PeerWatch:
    """Ends this process with exit code 1 and one sentence when another is lost.

    Args:
        process: the number of this process.
        num_processes: of the run.
        address: (host, port) of the socket that process 0 listens on.
        server: that socket; None on the other processes.
    """

    def __init__(self, *, process: int, num_processes: int, address: tuple[str, int], server: socket.socket | None):
        self._process = process
        self._stopped = threading.Event()
        self._connections: dict[int, socket.socket] = {}
        with contextlib.suppress(OSError):  # without a connection JAX's heartbeats remain
            if server:
                self._accept(server, num_processes - 1)
            else:
                self._connections[0] = socket.create_connection(address, timeout=_CONNECT_S)
                self._connections[0].sendall(f"{process}\n".encode())
        self._lost = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(peer,), daemon=True) for peer in self._connections]
        for connection in self._connections.values():
            connection.settimeout(None)
        for thread in self._threads:
            thread.start()

    def _accept(self, server: socket.socket, count: int) -> None:
        expected = [str(i).encode() for i in range(1, count + 1)]
        with server:
            server.settimeout(_CONNECT_S)
            while len(self._connections) < count:
                connection, _ = server.accept()
                connection.settimeout(_CONNECT_S)
                if (name := _read_line(connection)) in expected:
                    self._connections[int(name)] = connection
                else:  # a stranger
                    connection.close()

    def wait_for_loss(self) -> bool:
        """Waits until the watch ends this process, if a process was lost; returns False if there is no such news."""
        if self._lost.wait(_NEWS_S):
            time.sleep(2 * _GRACE_S)
        return self._lost.is_set()

    def stop(self) -> None:
        """Stops watching, as this process has failed and reports it itself."""
        self._stopped.set()
        self._tell(_FAILED)

    def wait_for_others(self) -> None:
        """Waits on process 0 until the others have ended, or for the time that the news may take.

        JAX's coordinator ends with process 0, and ends those that it leaves behind by SIGABRT.
        """
        deadline = time.monotonic() + _NEWS_S
        if self._process == 0:
            for thread in self._threads:
                thread.join(timeout=max(0.0, deadline - time.monotonic()))

    def finish(self) -> None:
        """Says to the others that this process ends in order, and stops watching."""
        self._stopped.set()
        self._tell(_DONE)

    def _watch(self, peer: int) -> None:
        """Acts on what a process says first, or on its end, and then waits for its end."""
        line = b""
        with contextlib.suppress(OSError):
            line = _read_line(self._connections[peer])
        if line != _DONE.strip():
            # JAX ends a process that has lost its coordinator within 0.2 s: then there is no time to lose.
            grace_s = _GRACE_S if peer or line else 0.0
            self._report(int(line.removeprefix(_LOST)) if line.startswith(_LOST) else peer, grace_s)
        with contextlib.suppress(OSError):
            while self._connections[peer].recv(64):  # news that is known
                pass

    def _report(self, lost: int, grace_s: float) -> None:
        if self._lost.is_set():
            return
        self._lost.set()
        self._tell(_LOST + f"{lost}\n".encode())
        if not self._stopped.wait(grace_s):
            message = f"Lost another process, number {lost}: start all again; the run continues from its checkpoint.\n"
            os.write(2, message.encode())  # a buffered stream may be locked by the thread that hangs
            os._exit(1)

    def _tell(self, message: bytes) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(message)


def _read_line(connection: socket.socket) -> bytes:
    """Reads up to the end of a line, and no byte beyond; what there is where the connection ends."""
    line = b""
    while (byte := connection.recv(1)) not in (b"", b"\n"):
        line += byte
    return line
