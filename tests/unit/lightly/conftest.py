from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.unit.lightly.servers import Server, serve, serve_raw
from watcher.domain.backoff import Backoff
from watcher.lightly.transport import Transport

TOKEN = "s3cret&to/ken=="
DATASET = "0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("LIGHTLY_TOKEN", "LIGHTLY_SERVER_LOCATION", "LIGHTLY_CA_CERTS", "LIGHTLY_S3_SSE_KMS_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def start() -> Iterator[Callable[..., Server]]:
    """Starts a server that answers by a function of the request."""
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(serve(answer))


@pytest.fixture
def start_raw() -> Iterator[Callable[..., str]]:
    """Starts a server that writes raw bytes; gives its address."""
    with ExitStack() as stack:
        yield lambda handle: stack.enter_context(serve_raw(handle))


@pytest.fixture
def connect() -> Iterator[Callable[..., Transport]]:
    """Makes a transport with quick retries."""
    made: list[Transport] = []

    def build(server: str, **changes: Any) -> Transport:
        settings: dict[str, Any] = {
            "server": server,
            "token": TOKEN,
            "retry": Backoff(base_s=0.01, cap_s=0.02, max_attempts=3),
            "rng": random.Random(1),
            "connect_timeout_s": 2.0,
            "read_timeout_s": 2.0,
        }
        made.append(Transport(**{**settings, **changes}))
        return made[-1]

    yield build
    for transport in made:
        transport.close()
