"""Starts commands without the seconds that their imports take: a process that has imported all forks for each of them.

Run as a program, it is that process. It has started no device of JAX and no thread, so that what it forks is a process
like any other: it parses its own command line, can be killed, and ends as the interpreter ends.
"""

import contextlib
import json
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


class Command:
    """A command that runs: `stdout` and `stderr` are files; `pid` is that of a real process."""

    def __init__(self, forks: "Forks", pid: int, stdout: Path, stderr: Path):
        self._forks, self.pid, self.stdout, self.stderr = forks, pid, stdout, stderr
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, as `subprocess` gives it; None while the command runs."""
        if self.returncode is None:
            self.returncode = self._forks.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout_s: float) -> int:
        """Waits for the end, and returns the exit code; a command that takes longer is killed."""
        end = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > end:
                self.send_signal(9)
                raise AssertionError(f"It did not end within {timeout_s} s: {self.stdout.read_text()}")
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless the command has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Forks:
    """The process that forks, seen from outside."""

    def __init__(self, environment: dict[str, str]):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._process = subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=environment, text=True, **pipes)

    def ask(self, **request) -> int | None:
        """Sends a request and returns the answer."""
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def start(self, script: str, *arguments: object, stdout: Path, stderr: Path) -> Command:
        """Starts a command whose output goes to two files, or to one."""
        for path in (stdout, stderr):
            path.touch()
        pid = self.ask(argv=[str(ROOT / script), *map(str, arguments)], files=[str(stdout), str(stderr)])
        return Command(self, pid, stdout, stderr)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _serve() -> list[str]:
    """Answers requests until there are no more; in a forked process it returns the command line that is to be run."""
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork()
            if not answer:
                answers.close()
                for number, path in enumerate([os.devnull, *request["files"]]):
                    descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                return request["argv"]
        print(json.dumps(answer), file=answers, flush=True)
    raise SystemExit


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # as of a script that stands there

    import sklearn.datasets  # noqa: F401 - of the digits

    from ddpm_jax.cli import evaluate, sample, train  # noqa: F401

    sys.argv = _serve()
    runpy.run_path(sys.argv[0], run_name="__main__")
