"""A proxy between a real daemon and a real platform that delays, cuts, throttles, refuses, loses and answers rubbish.

It works on the bytes of HTTP/1.1: a head and, by `Content-Length`, a body. What goes wrong is drawn from a seed, so
that a run can be repeated as far as real processes allow. For rules about single requests, and for looking at what
was asked, there is `tests/contract/client/middleman.py`; this one knows no endpoints.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

# What may happen to a request. From `lose` on it has reached the server, and the client hears nothing or half of it.
FAULTS = ("reset", "429", "500", "503", "delay", "throttle", "lose", "cut", "502 afterwards", "rubbish")
_RUBBISH = b"<html><body>The service is being maintained.</body></html>"
_LIMIT_S = 60.0
_CHUNK = 1 << 16


class FaultProxy:
    """Listens on loopback; `rate` is the share of requests that go wrong, and may be changed at any time."""

    def __init__(
        self, upstream: tuple[str, int], *, seed: int, rate: float, faults: Sequence[str] = FAULTS
    ) -> None:
        self.upstream = upstream
        self.rate = rate
        self.counts: Counter[str] = Counter()
        self._faults = faults
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    proxy._serve(self.request)

        class Listener(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.port: int = self._listener.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def stop(self) -> None:
        self._listener.shutdown()
        self._listener.server_close()

    def _draw(self, *, is_object: bool) -> tuple[str, random.Random]:
        with self._lock:
            fault = self._rng.choice(self._faults) if self._rng.random() < self.rate else ""
            # What is read from an object cannot be told from a broken object.
            fault = "cut" if fault == "rubbish" and is_object else fault
            self.counts[fault or "well"] += 1
            return fault, random.Random(self._rng.random())

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_LIMIT_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client.makefile("rb") as reader:
            while True:
                request = _read_message(reader)
                if request is None:
                    return
                head, body = request
                path = head.split(b" ", 2)[1]
                fault, rng = self._draw(is_object=not path.startswith(b"/v1/"))
                if not self._answer(client, head, body, fault, rng):
                    return

    def _answer(
        self, client: socket.socket, head: bytes, body: bytes, fault: str, rng: random.Random
    ) -> bool:
        """Answers one request; False if the connection ends with it."""
        if fault == "reset":
            _reset(client)
            return False
        if fault.isdecimal():
            extra = b"Retry-After: 1\r\n" if fault == "429" else b""
            client.sendall(_build_answer(fault.encode(), b'{"code":"FAULT"}', extra))
            return True
        if fault == "delay":
            time.sleep(rng.uniform(0.05, 1.5))
        answer_head, answer_body = self._pass_on(head, body)
        if fault == "lose":
            _reset(client)
            return False
        if fault == "502 afterwards":
            client.sendall(_build_answer(b"502", _RUBBISH))
            return True
        if fault == "rubbish":
            client.sendall(_build_answer(b"200", _RUBBISH, b"Content-Type: text/html\r\n"))
            return True
        if fault == "cut":
            client.sendall(answer_head + answer_body[: len(answer_body) // 2])
            return not answer_body
        if fault == "throttle":
            client.sendall(answer_head)
            step = max(1, len(answer_body) // 8)
            for start in range(0, len(answer_body), step):
                time.sleep(0.05)
                client.sendall(answer_body[start : start + step])
            return True
        client.sendall(answer_head + answer_body)
        return True

    def _pass_on(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """One exchange with the server, over a connection of its own; the client's `Host` stays."""
        with (
            socket.create_connection(self.upstream, timeout=_LIMIT_S) as server,
            server.makefile("rb") as reader,
        ):
            server.sendall(head + body)
            answer = _read_message(reader, to_end=True)
        if answer is None:
            raise OSError("the server closed the connection")
        return answer


def _read_message(reader: BinaryIO, *, to_end: bool = False) -> tuple[bytes, bytes] | None:
    """Head with its empty line, and body; None at the end of the connection."""
    lines = []
    while line := reader.readline(_CHUNK):
        lines.append(line)
        if line == b"\r\n":
            break
    if not lines or lines[-1] != b"\r\n":
        return None
    head = b"".join(lines)
    fields = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in lines[1:-1])
    }
    if fields.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b"".join(_iter_chunks(reader))
        length = b"Content-Length: %d\r\n" % len(body)
        return re.sub(rb"(?i)transfer-encoding: *chunked\r\n", length, head), body
    if b"content-length" not in fields:
        has_body = to_end and lines[0].split(b" ")[1] not in (b"204", b"304")
        return (head, reader.read()) if has_body else (head, b"")
    n_bytes = int(fields[b"content-length"])
    body = reader.read(n_bytes)
    return (head, body) if len(body) == n_bytes else None


def _iter_chunks(reader: BinaryIO) -> Iterator[bytes]:
    while n_bytes := int(reader.readline(_CHUNK).split(b";")[0], 16):
        yield reader.read(n_bytes)
        reader.readline()
    reader.readline()


def _build_answer(status: bytes, body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b Fault\r\n%bContent-Length: %d\r\n\r\n%b" % (status, extra, len(body), body)


def _reset(client: socket.socket) -> None:
    """Ends the connection with RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@contextmanager
def stand_in_the_way(
    upstream: tuple[str, int], *, seed: int, rate: float, faults: Sequence[str] = FAULTS
) -> Iterator[FaultProxy]:
    """A proxy for the length of the block."""
    proxy = FaultProxy(upstream, seed=seed, rate=rate, faults=faults)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
