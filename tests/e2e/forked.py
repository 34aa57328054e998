"""Starts commands without the seconds that their imports take: a process that has imported all forks for each of them.

Run as a program, it is that process. It has started no device of JAX and no thread, so that what it forks is a process
like any other: it parses its own command line, can be killed, and ends as the interpreter ends.
"""

import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LONGEST = 2**16  # bytes of a request


class Command:
    """A command that runs, with what tests use of a `subprocess.Popen`; `pid` is that of a real process."""

    def __init__(self, forks: "Forks", pid: int, stdout: object, stderr: object):
        self._forks, self.pid, self.stdout, self.stderr = forks, pid, stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, as `subprocess` gives it; None while the command runs."""
        if self.returncode is None:
            self.returncode = self._forks.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 300) -> int:
        """Waits for the end, and returns the exit code; a command that takes longer, in seconds, is killed."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise AssertionError(f"It did not end within {timeout} s.")
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float = 300) -> tuple[str, None]:
        """Returns what comes yet of its output, at its end; a command that takes longer, in seconds, is killed."""
        late = threading.Timer(timeout, os.kill, (self.pid, signal.SIGKILL))
        late.start()
        output = self.stdout.read()
        late.cancel()
        self.wait()
        return output, None

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the command has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that forks, seen from outside."""

    def __init__(self, environment: dict[str, str]):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], cwd=ROOT, env=environment, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip

    def ask(self, request: dict, files: tuple[int, ...] = ()) -> int | None:
        """Sends a request and the descriptors of files, and returns the answer."""
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        return json.loads(self._socket.recv(_LONGEST))

    def start(
        self,
        script: str,
        *arguments: object,
        devices: int = 1,
        stdout: Path | None = None,
        stderr: Path | None = None,
    ) -> Command:
        """Starts a command for so many devices; its output goes to these files, or all to the pipe `stdout`."""
        request = {"argv": [str(ROOT / script), *map(str, arguments)], "devices": devices}
        if stdout is None:
            reader, writer = os.pipe()
            stdout, files = os.fdopen(reader), (writer, writer)
        else:
            files = tuple(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in (stdout, stderr))
        pid = self.ask(request, files)
        for descriptor in set(files):
            os.close(descriptor)
        return Command(self, pid, stdout, stderr)

    def close(self) -> None:
        """Ends the process."""
        self._socket.close()
        self._process.wait()


def _serve(asked: socket.socket) -> dict:
    """Answers requests until there are no more; in a forked process it returns the command that is to be run."""
    while True:
        message, files, *_ = socket.recv_fds(asked, _LONGEST, 2)
        if not message:
            raise SystemExit
        request = json.loads(message)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            for number, descriptor in enumerate(files, 1):
                if not answer:
                    os.dup2(descriptor, number)
                os.close(descriptor)
            if not answer:
                return request
        asked.send(json.dumps(answer).encode())


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as of a script that stands there

    import jax
    import sklearn.datasets  # noqa: F401 - of the digits

    from ddpm_jax.cli import evaluate, sample, train  # noqa: F401

    with socket.socket(fileno=int(sys.argv[1])) as asked:
        request = _serve(asked)
    os.environ["JAX_NUM_CPU_DEVICES"] = str(request["devices"])
    jax.config.update("jax_num_cpu_devices", request["devices"])
    sys.argv = request["argv"]
    runpy.run_path(sys.argv[0], run_name="__main__")
