"""A server in a process of its own, sent what is hostile, and what may come back of it."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import msgspec
import numpy as np
from bundles import FROM_IMAGE
from hostile_messages import TOKEN, Hostile, X

from runtime.wire.protocol.reasons import KEY, Reason
from runtime.wire.transports import Transport, open_transport

CONNECT_S, ANSWER_S = 5.0, 20.0
_WORDS = {reason.word for reason in Reason} - {Reason.FAILED.word}
_WITHOUT_A_WORD = {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
"""Codes that grpcio gives of itself: no such call, too large, too many, no time left."""


class Served:
    """`nas serve` with a token, on both fronts; `send` what is hostile, `check` that a good request is answered."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        (folder / "token").write_text(TOKEN)
        words = [bundle, "--token-file", folder / "token"]
        words += ["--listen", "grpc://127.0.0.1:0", "--listen", "http://127.0.0.1:0"]
        self.log = folder / "log.txt"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from nas.cli import main; main()", "serve", *map(str, words)],
                stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        assert self.process.stdout is not None
        self.grpc, self.http = re.findall(r"\w+://[^\s,]+", self.process.stdout.readline())
        self._good = [open_transport(url, token=TOKEN) for url in (self.grpc, self.http)]
        self._wanted = [_ask(one) for one in self._good]
        options = [("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(self.grpc.removeprefix("grpc://"), options)

    def send(self, hostile: Hostile) -> tuple[str, str]:
        """What came of it, in a word, and what is wrong with that ("" where it is as it must be)."""
        if hostile.method:
            return self._called(hostile)
        return self._said(hostile, self.grpc if hostile.kind.startswith("connection") else self.http)

    def check(self) -> list[str]:
        """What is wrong with the answers to good requests on the connections that were there from the beginning, and on
        new ones."""
        wrong = []
        for url, wanted, kept in zip((self.grpc, self.http), self._wanted, self._good, strict=True):
            with open_transport(url, token=TOKEN) as new:
                for which, transport in (("kept", kept), ("new", new)):
                    try:
                        output = _ask(transport)
                    except Exception as error:
                        wrong.append(f"good request, {which} connection to {url}: {error}")
                    else:
                        if not np.allclose(output, wanted, rtol=1e-4, atol=1e-5):
                            wrong.append(f"good request, {which} connection to {url}: another answer than before")
        return wrong

    def alive(self) -> bool:
        """Whether the process is the one that was started."""
        return self.process.poll() is None

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Of the process, in MB of 10^6 bytes. VmHWM : the most so far."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", text)[1]) * 1024 / 1e6  # type: ignore[index]

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *_: object) -> None:
        for transport in self._good:
            transport.close()
        self._channel.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def _called(self, hostile: Hostile) -> tuple[str, str]:
        call = self._channel.unary_unary(hostile.method)
        try:
            call(hostile.data, timeout=hostile.timeout_s, metadata=hostile.metadata)
        except grpc.RpcError as error:
            code, word = error.code().name, dict(error.trailing_metadata() or ()).get(KEY)
            outcome = f"{code} {word or ''}".strip()
            if code == "DEADLINE_EXCEEDED" and hostile.timeout_s >= ANSWER_S:
                return outcome, f"no answer within {hostile.timeout_s} s"
            said = error.details() or ""
            if word in _WORDS or (word is None and code in _WITHOUT_A_WORD and "metadata" not in said):
                return outcome, ""
            return outcome, f"{outcome}: {said[:200]}"  # metadata: the sentence did not fit in
        return "OK", "" if hostile.passes else "answered as if it were good"

    def _said(self, hostile: Hostile, url: str) -> tuple[str, str]:
        """Send it over a connection of its own, then wait for the answer."""
        host, port = url.rpartition("/")[2].split(":")
        started = time.monotonic()
        answer = b""
        with socket.create_connection((host, int(port)), timeout=CONNECT_S) as sock:
            sock.settimeout(ANSWER_S)
            try:
                with contextlib.suppress(ConnectionError):
                    sock.sendall(hostile.data)
                if hostile.silent:
                    sock.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while not _whole(answer) and (data := sock.recv(65536)):
                        answer += data
            except TimeoutError:
                return "timeout", f"no end within {time.monotonic() - started:.0f} s"
            except OSError as error:
                return "broken", str(error)
        return _judged(hostile, answer)


def _ask(transport: Transport) -> np.ndarray:
    return transport.infer(FROM_IMAGE, X, bits=32, timeout_s=ANSWER_S).output


_read: Callable[[bytes], "re.Match[bytes] | None"] = re.compile(
    rb"HTTP/1\.[01] (?P<status>\d+) [^\r]*\r\n(?P<headers>.*?)\r\n\r\n(?P<body>.*)", re.S
).match


def _whole(answer: bytes) -> bool:
    found = _read(answer)
    length = found and re.search(rb"(?i)content-length: (\d+)", found["headers"])
    return bool(found and length and len(found["body"]) >= int(length[1]))


def _judged(hostile: Hostile, answer: bytes) -> tuple[str, str]:
    found = _read(answer)
    if found is None:
        return "closed", "" if hostile.silent else f"closed with {answer[:80]!r} for an answer"
    status, headers = int(found["status"]), found["headers"].decode("latin-1").lower()
    word = re.search(rf"{KEY}: (\S+)", headers)
    outcome = f"{status} {word[1] if word else ''}".strip()
    if status == 200:
        return outcome, "" if hostile.passes else "answered as if it were good"
    if word is None or word[1] not in _WORDS:
        return outcome, f"{outcome}: {answer[:300]!r}"
    told = msgspec.json.decode(found["body"], type=dict[str, str])
    return outcome, "" if told.get("error") else f"{outcome} without a sentence"
