"""What is told of every request to whoever counts, logs or traces them."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

REQUEST_ID_HEADER = "X-Request-Id"


@dataclass(frozen=True, slots=True)
class RequestSeen:
    """One try of one request, for metrics.

    Attributes:
        endpoint: method and path template, from a closed set: `GET /v1/datasets/{datasetId}/tags`, `GET read-url`.
        code: HTTP status as text, or `error` when no complete answer came.
        duration_s: from the first byte written to the last byte read.
        is_retry: whether it repeats a try before it.
        n_sent_bytes: length of the body.
        n_received_bytes: length of the answer's body, as far as it was read or told.
    """

    endpoint: str
    code: str
    duration_s: float
    is_retry: bool = False
    n_sent_bytes: int = 0
    n_received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ServerTime:
    """The server's clock beside the machine's, at one moment.

    Attributes:
        date_s: the `Date` header, unix seconds, truncated by the server.
        local_s: the machine's unix time when the answer came.
        monotonic_s: the machine's monotonic reading at the same moment.
    """

    date_s: int
    local_s: float
    monotonic_s: float

    @property
    def skew_s(self) -> float:
        """How far the server's clock is ahead of the machine's, within about a second."""
        return self.date_s + 0.5 - self.local_s


class RequestTracer(Protocol):
    """Makes a span of each request."""

    def span(self, endpoint: str, *, request_id: str) -> AbstractContextManager[Mapping[str, str]]:
        """A span round one try; gives the headers that let the server join the trace."""


class RequestNumbers:
    """Ids of requests, and which try of its call the present thread is at."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._local = threading.local()

    def next_id(self) -> str:
        """An id that no other request of this or another process bears, to find it in the server's log."""
        return f"{self._start}-{next(self._numbers)}"

    def begin_try(self, number: int) -> None:
        """Notes that this thread makes the try of that number, from 1."""
        self._local.number = number

    @property
    def is_retry(self) -> bool:
        """Whether this thread repeats a try."""
        return getattr(self._local, "number", 1) > 1
