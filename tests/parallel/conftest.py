"""Two real processes of two devices, which run one program."""

import os
import socket
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def run_two():
    """`run_two(program, timeout=120)` -> what each printed, and their exit codes; they are given address and number."""

    def run_two(program, *, timeout):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program, address, str(i)], env=environment, stdout=subprocess.PIPE, text=True
            )
            for i in range(2)
        ]
        try:
            outputs = [process.communicate(timeout=timeout)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        return outputs, [process.returncode for process in processes]

    return run_two
