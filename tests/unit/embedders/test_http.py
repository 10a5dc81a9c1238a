"""Vectors from an HTTP service, which may be slow, broken, overloaded or somewhere else."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from PIL import Image

from watcher.domain.clock import SystemClock
from watcher.domain.errors import EmbedderAnswerError, EmbedderUnavailableError
from watcher.domain.step_rules import EmbedderKind, EmbedRules
from watcher.embedders.http import HttpEmbedder
from watcher.images import DEFAULT_LIMITS


class Service:
    """Answers what the test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.act: Callable[[Any, list[bytes]], None] = lambda handler, images: handler.answer(
            {"vectors": [measure(image) for image in images]}
        )
        self.batches: list[int] = []
        self.tokens: list[str | None] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                images = [base64.b64decode(image) for image in asked["images"]]
                service.batches.append(len(images))
                service.tokens.append(self.headers.get("Authorization"))
                service.act(self, images)

            def answer(self, value: object, status: int = 200, **headers: str) -> None:
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                for name, text in headers.items():
                    self.send_header(name.replace("_", "-"), text)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/embed?key=s3cret-of-the-url"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def measure(image: bytes) -> list[float] | None:
    with Image.open(io.BytesIO(image)) as picture:
        red, green, _ = picture.convert("RGB").resize((1, 1)).getpixel((0, 0))
    return None if red > 250 else [red, green]


@pytest.fixture
def service():
    made = Service()
    yield made
    made.close()


def build(service: Service, **changes) -> HttpEmbedder:
    values = {"batch_size": 3, "time_limit_s": 60.0, "dim": 2, "version": "v1", "url": service.url, **changes}
    return HttpEmbedder(
        EmbedRules(kind=EmbedderKind.HTTP, **values), limits=DEFAULT_LIMITS, clock=SystemClock()
    )


def encode(red: int, green: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12), (red, green, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def embed(embedder: HttpEmbedder, *contents: bytes) -> np.ndarray:
    return embedder.embed_prepared([embedder.prepare(content) for content in contents])


def test_vectors_come_in_order_in_batches_of_the_size_that_was_set(service):
    embedder = build(service, token="t0ken")
    levels = [0, 50, 100, 150, 200, 240, 20]
    found = embed(embedder, *(encode(level, 90) for level in levels))
    np.testing.assert_allclose(found, [[level, 90] for level in levels], atol=3)
    assert service.batches == [3, 3, 1]
    assert set(service.tokens) == {"Bearer t0ken"}
    assert (embedder.name, embedder.dim) == ("http-v1", 2)


def test_picture_that_the_service_refuses_stops_no_other(service):
    found = embed(build(service), encode(10), encode(255), encode(30))
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
def test_service_that_cannot_now_is_asked_again_later(service, status):
    service.act = lambda handler, _images: handler.answer({"no": "way"}, status, Retry_After="17")
    with pytest.raises(EmbedderUnavailableError, match=f"answered {status}") as caught:
        embed(build(service), encode(1))
    assert caught.value.retryable
    assert caught.value.retry_after_s == 17


@pytest.mark.parametrize(
    ("value", "status", "told"),
    [
        ({"error": "what?"}, 400, "answered 400, not 200"),
        (b"", 302, "answered 302, not 200"),
        (b"<html>hello</html>", 200, "did not answer"),
        ({"vectors": [[1, 2], [3, 4]]}, 200, "with 1 entries"),
        ({"vectors": {"0": [1, 2]}}, 200, "with 1 entries"),
        ([1, 2], 200, "with 1 entries"),
        ({"vectors": [[1, 2, 3]]}, 200, "a list of 3 instead of 2 numbers"),
        ({"vectors": [[1, "x"]]}, 200, "something other than numbers"),
        (b'{"vectors": [[1, 1e39]]}', 200, "not finite"),
        (b" " * 200_000, 200, "more than"),
    ],
)
def test_service_that_answers_rubbish_is_not_asked_again(service, value, status, told):
    service.act = lambda handler, _images: handler.answer(value, status)
    with pytest.raises(EmbedderAnswerError) as caught:
        embed(build(service), encode(1))
    assert told in str(caught.value)
    assert not caught.value.retryable
    assert "s3cret" not in str(caught.value)


def test_service_that_drips_its_answer_is_given_up(service):
    given_up = threading.Event()

    def drip(handler: Any, _images: list[bytes]) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        try:
            while not given_up.is_set():
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass

    service.act = drip
    try:
        with pytest.raises(EmbedderUnavailableError):
            embed(build(service, time_limit_s=0.5), encode(1))
    finally:
        given_up.set()


def test_service_that_is_not_there_is_asked_again_later(service):
    service.close()
    with pytest.raises(EmbedderUnavailableError, match="could not connect") as caught:
        embed(build(service), encode(1))
    assert caught.value.retryable
    assert "s3cret" not in str(caught.value)
