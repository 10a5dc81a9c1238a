"""An HTTP server in a thread: bound before anything else, stopped within a limit."""

from __future__ import annotations

import socket
import threading
import time

import pytest
import requests
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from watcher.domain.errors import ConfigError
from watcher.serving import ThreadedServer


def build(handle=lambda _request: PlainTextResponse("here"), *, host="127.0.0.1", port=0) -> ThreadedServer:
    app = Starlette(routes=[Route("/", handle)])
    return ThreadedServer(app, host=host, port=port, name="status page", setting="WATCHER_HTTP__PORT")


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


def test_server_that_never_started_stops_without_harm():
    build().stop()
