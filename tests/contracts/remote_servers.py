"""Servers in processes of their own, and how they are asked."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from served_function import CLASSES

SCRIPT = Path(__file__).with_name("served_function.py")
SCHEMES = {"grpc": "grpc", "rest": "http"}
REMOTE = pytest.mark.parametrize("kind", ["grpc", "rest"])


class Served:
    """A server in a process of its own."""

    def __init__(self, kind: str, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), kind, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self.process.stdout.readline())
        self.url = f"{SCHEMES[kind]}://127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.end()

    def end(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def ask(transport, model, x, bits=8, timeout_s=5.0):
    return transport.infer(model, x, bits=bits, timeout_s=timeout_s, shape_out=(CLASSES,))
