import contextlib
import hashlib
import os
import signal
import sys
import threading
import time

import pytest

from ddpm_jax.runtime import signals
from ddpm_jax.runtime.signals import Output, StopRequest


@pytest.fixture
def pipe():
    """The two ends of a pipe, closed at the end where they are not."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture(autouse=True)
def never_asked_before(monkeypatch):
    monkeypatch.setattr(StopRequest, "received", False)


def test_a_signal_is_answered_while_the_main_thread_computes(pipe, monkeypatch):
    """Python's handlers wait until it is back from C, which a chain of samples may keep it in for a minute."""
    reader, writer = pipe
    answered = []

    def interrupt_and_read():
        os.kill(os.getpid(), signal.SIGINT)
        answered.append((time.monotonic(), os.read(reader, 999).decode()))

    with os.fdopen(os.dup(writer), "w") as stdout, StopRequest() as stop:
        monkeypatch.setattr(sys, "stdout", stdout)
        stop.expect(58.0)
        timer = threading.Timer(0.1, interrupt_and_read)
        timer.start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000)  # a second or so in C
        back = time.monotonic()
        timer.join(5)
        assert stop.exit_code == 130
    ((at, said),) = answered
    assert "SIGINT: finishing what is in hand, and saving, in about 58 s (Ctrl-C again: leave at once)." in said
    assert at < back


def test_a_signal_in_the_midst_of_a_print_is_no_error(pipe, monkeypatch):
    """A handler that printed would meet the buffer of the print that it interrupts: RuntimeError: reentrant call."""
    reader, writer = pipe
    text = "x" * 200_000  # more than a pipe holds
    received = []

    def interrupt_and_read():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        while sum(map(len, received)) < len(text):
            received.append(os.read(reader, 65536))

    with os.fdopen(os.dup(writer), "w") as stdout, StopRequest() as stop:
        monkeypatch.setattr(sys, "stdout", stdout)
        timer = threading.Timer(0.1, interrupt_and_read)
        timer.start()
        print(text, end="", flush=True)
        timer.join(5)
        assert stop.exit_code == 143
    assert b"".join(received).count(b"x") == len(text)


def test_a_closed_output_is_no_error(pipe):
    reader, writer = pipe
    output = Output(writer)
    assert output.write(b"seen\n") == 5
    os.close(reader)
    assert output.write(b"lost\n") == 5
    assert output.write(b"lost\n") == 5


def test_an_output_that_nobody_reads_is_waited_for_until_a_stop_is_asked_for(pipe):
    _, writer = pipe
    output = Output(writer)
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"." * 4096)
    os.set_blocking(writer, True)
    begin = time.monotonic()
    with StopRequest() as stop:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        assert output.write(b"lost\n") == 5
        assert stop.exit_code == 143
    assert 0.2 < time.monotonic() - begin < 5
    assert output.write(b"lost too, and at once\n") == 22


def test_printing_survives_a_closed_pipe(pipe, monkeypatch):
    reader, writer = pipe
    with os.fdopen(os.dup(writer), "w") as stdout, os.fdopen(os.dup(writer), "w") as stderr:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setattr(sys, "stderr", stderr)
        signals.keep_output()
        print("a ± b")
        assert os.read(reader, 99).decode(stdout.encoding) == "a ± b\n"
        os.close(reader)
        for _ in range(3):
            print("lost", flush=True)
            print("lost", file=sys.stderr, flush=True)


def test_a_stream_that_is_no_file_stays_as_it_is(capsys):
    before = sys.stdout
    signals.keep_output()
    assert sys.stdout is before
