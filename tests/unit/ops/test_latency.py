"""Answers over a connection that is kept."""

from __future__ import annotations

import statistics
import time

import requests
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from watcher.serving import ThreadedServer


def test_answers_over_a_kept_connection_do_not_wait_for_acknowledgements() -> None:
    app = Starlette(routes=[Route("/", lambda _request: PlainTextResponse("here"))])
    server = ThreadedServer(app, host="127.0.0.1", port=0, name="test", setting="PORT")
    server.start()
    try:
        with requests.Session() as session:
            session.trust_env = False
            waits_s = []
            for _ in range(15):
                begun_s = time.monotonic()
                assert session.get(server.url, timeout=10).text == "here"
                waits_s.append(time.monotonic() - begun_s)
    finally:
        server.stop(timeout_s=5.0)
    assert statistics.median(waits_s) < 0.03, waits_s
