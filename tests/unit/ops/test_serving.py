"""An HTTP server in a thread: bound before anything else, stopped within a limit."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from tests.waiting import LIMIT_S, wait_for
from watcher.domain.errors import ConfigError
from watcher.serving import ThreadedServer


def build(
    handle=lambda _request: PlainTextResponse("here"), *, host="127.0.0.1", port=0, **limits
) -> ThreadedServer:
    app = Starlette(routes=[Route("/", handle, methods=["GET", "POST"])])
    return ThreadedServer(
        app, host=host, port=port, name="status page", setting="WATCHER_HTTP__PORT", **limits
    )


def get(url: str) -> requests.Response:
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, timeout=10)


def test_server_answers_as_soon_as_it_started_and_no_longer_after_its_stop():
    server = build()
    server.start()
    assert get(server.url).text == "here"
    server.stop()
    with pytest.raises(requests.ConnectionError):
        get(server.url)


def test_date_of_answers_is_the_present_second_though_nothing_happens_meanwhile():
    server = build()
    server.start()
    try:
        first = get(server.url).headers["Date"]
        wait_for(lambda: get(server.url).headers["Date"] != first, what="the date moves on")
        assert abs(parsedate_to_datetime(get(server.url).headers["Date"]).timestamp() - time.time()) < 30
    finally:
        server.stop()


def test_server_on_a_port_that_is_taken_is_refused_with_the_setting():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = build(port=port)
        with pytest.raises(ConfigError, match=f"listen on 127.0.0.1:{port} .*set WATCHER_HTTP__PORT"):
            server.start()
        server.stop()


@pytest.mark.parametrize("host", ["203.0.113.7", "no such host"])
def test_server_on_an_address_that_is_not_here_is_refused(host):
    server = build(host=host)
    with pytest.raises(
        ConfigError, match=r"cannot listen on .*: set WATCHER_HTTP__HOST to an address of this machine$"
    ):
        server.start()
    server.stop()


def test_server_that_stops_finishes_the_answer_under_way():
    begun, go = threading.Event(), threading.Event()

    def handle(_request: Request) -> PlainTextResponse:
        begun.set()
        go.wait(10)
        return PlainTextResponse("finished")

    server = build(handle)
    server.start()
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(get(server.url).text))
    client.start()
    begun.wait(10)
    threading.Timer(0.1, go.set).start()
    server.stop(timeout_s=10)
    client.join(10)
    assert answers == ["finished"]


def test_server_that_hangs_is_given_up_at_the_limit():
    begun, go = threading.Event(), threading.Event()

    def handle(_request: Request) -> PlainTextResponse:
        begun.set()
        go.wait(60)
        return PlainTextResponse("too late")

    server = build(handle)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        begun.wait(10)
        begun_s = time.monotonic()
        server.stop(timeout_s=0.2)
        assert time.monotonic() - begun_s < 30
        go.set()


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:5"), ("0.0.0.0", "http://127.0.0.1:5"), ("::", "http://[::1]:5"),
     ("::1", "http://[::1]:5")],
)  # fmt: skip
def test_server_listening_anywhere_is_reached_on_this_machine(host, url):
    assert build(host=host, port=5).url == url


async def read_body(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(await request.body())} bytes")


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"],
    ids=["nothing", "half a head", "half a body"],
)
def test_client_that_does_not_send_the_rest_of_its_request_is_waited_for_up_to_the_limit(begun):
    server = build(read_body, client_limit_s=0.3)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(LIMIT_S)
            with contextlib.suppress(ConnectionError):
                client.sendall(begun)
            assert not read_to_the_end(client).startswith(b"HTTP/1.1 200")
    finally:
        server.stop()


def test_client_that_does_not_take_its_answer_is_waited_for_up_to_the_limit():
    server = build(lambda _request: PlainTextResponse("x" * 50_000_000))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(LIMIT_S)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_for(lambda: find_connections(server), what="the client is connected")
            (connection,) = find_connections(server)
            wait_for(connection.transport.get_write_buffer_size, what="the answer fills the buffers")
            shorten_limit(connection)
            wait_for(lambda: not find_connections(server), what="the connection is closed")
            assert len(read_to_the_end(client)) < 50_000_000
    finally:
        server.stop()


def test_client_that_waits_for_an_answer_longer_than_the_limit_gets_it():
    begun, go = threading.Event(), threading.Event()

    def handle(_request: Request) -> PlainTextResponse:
        begun.set()
        go.wait(LIMIT_S)
        return PlainTextResponse("in the end")

    server = build(handle)
    server.start()
    answers: list[str] = []
    client = threading.Thread(target=lambda: answers.append(get(server.url).text))
    client.start()
    try:
        assert begun.wait(LIMIT_S)
        (connection,) = find_connections(server)
        shorten_limit(connection)
        time.sleep(0.2)
    finally:
        go.set()
        client.join(LIMIT_S)
        server.stop()
    assert answers == ["in the end"]


def test_connections_beyond_the_limit_are_closed_and_told_once():
    server = build(most_connections=3)
    server.start()
    try:
        with capture_logs() as events, contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(5)
            ]
            for client in clients[3:]:
                client.settimeout(LIMIT_S)
                assert read_to_the_end(client) == b""
            assert len(find_connections(server)) == 3
        assert [event["event"] for event in events] == ["connection.refused"]
        wait_for(lambda: not find_connections(server), what="the connections are closed")
        assert get(server.url).text == "here"
    finally:
        server.stop()


def find_connections(server: ThreadedServer) -> list[Any]:
    """Those that are open at the server."""
    assert server._server is not None
    return list(server._server.server_state.connections)


def shorten_limit(connection: Any) -> None:
    """From now on its client is waited for no longer than a moment."""
    connection._limit_s = 0.01
    connection.loop.call_soon_threadsafe(connection._look)


def read_to_the_end(client: socket.socket) -> bytes:
    """All bytes until the server closes; a connection that it broke off ends likewise."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(1 << 20):
            received += chunk
    return bytes(received)


def test_server_that_never_started_stops_without_harm():
    build().stop()
