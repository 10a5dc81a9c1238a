"""Bodies: read only for those who may send them, and only for so long."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import requests

from tests.integration.platform.conftest import TOKEN
from watcher.platform import bodies


@contextmanager
def connect(server) -> Iterator[socket.socket]:
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as connection:
        yield connection


def begin(connection, path: str, *, length: int = 50_000_000, header: str = "") -> None:
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n{header}\r\n{{".encode()
    )


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("", ""),
        ("?token=wrong-token", ""),
        ("", "Authorization: Bearer wrong-token\r\n"),
        ("", "Expect: 100-continue\r\n"),
    ],
)
def test_sender_without_a_known_token_is_answered_before_the_body_comes(
    build_server, monkeypatch, query, header
):
    monkeypatch.setattr(bodies, "_DRAIN_S", 0.2)
    with connect(build_server()) as connection:
        begin(connection, f"/v1/datasets{query}", header=header)
        answer = connection.makefile("rb").read()  # to the end: the connection is closed as well
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nconnection: close\r\n" in answer.lower()


def test_refused_sender_sees_the_answer_and_may_go_on(build_server):
    url = build_server(max_body_bytes=1000).url + "/v1/datasets"
    with requests.Session() as session:
        # Longer than what the sockets hold, so the server has to take it off them.
        for token, content, expected in (
            ("wrong-token", b" " * 20_000_000, 401),
            (TOKEN, b" " * 20_000_000, 413),
            (TOKEN, iter([b" " * 600] * 2), 413),
        ):
            answer = session.post(url, params={"token": token}, data=content, timeout=30)
            assert answer.status_code == expected
            assert "connection" not in answer.headers
        answer = session.post(
            url, headers={"Authorization": f"Bearer {TOKEN}"}, json={"name": "pictures"}, timeout=10
        )
        assert answer.status_code == 201


@pytest.mark.parametrize("path", [f"/v1/datasets?token={TOKEN}", "/login"])
def test_body_that_comes_by_the_byte_is_given_up_in_the_end(build_server, monkeypatch, path):
    monkeypatch.setattr(bodies, "_MAX_BODY_S", 0.5)
    with connect(build_server()) as connection:
        begin(connection, path, length=100)
        connection.settimeout(0.05)
        ends_s = time.monotonic() + 20
        answer = b""
        while not answer:
            assert time.monotonic() < ends_s, "the body is still awaited"
            connection.sendall(b" ")
            try:
                answer = connection.recv(10_000)
            except TimeoutError:
                continue
        connection.settimeout(20)
        with contextlib.suppress(ConnectionResetError):  # closed while a byte was under way
            while rest := connection.recv(10_000):
                answer += rest
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_login_that_stops_coming_is_given_up(build_server):
    with connect(build_server(request_timeout_s=0.3)) as connection:
        begin(connection, "/login", length=100)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 408 ")
