"""Calls of the API over HTTP: the token, retries within seconds, typed answers, typed errors.

`Transport` knows how to call, not what: the modules beside it, one a resource, name the endpoints.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import msgspec
import requests

from watcher import __version__
from watcher.domain.backoff import Backoff
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import (
    ApiException,
    CancelledError,
    ProtocolError,
    TransportError,
    UnauthorizedException,
    UnknownOutcomeError,
    WatcherError,
)
from watcher.domain.redaction import redact
from watcher.lightly import signed_urls
from watcher.lightly.addresses import QueryValue, build_url, check_server
from watcher.lightly.answers import (
    Answer,
    build_exception,
    decode,
    describe_redirect,
    may_repeat,
    parse_http_date,
    read_answer,
)
from watcher.lightly.connections import Connections
from watcher.lightly.observation import (
    REQUEST_ID_HEADER,
    RequestNumbers,
    RequestSeen,
    RequestTracer,
    ServerTime,
)
from watcher.lightly.secret import Token
from watcher.lightly.signed_urls import ReadResult, ReadStream
from watcher.lightly.trust import build_trust
from watcher.lightly.wire.datasets import Creator

__all__ = [
    "Answer",
    "QueryValue",
    "RequestSeen",
    "ServerTime",
    "Transport",
]

T = TypeVar("T")

DEFAULT_RETRY = Backoff(base_s=0.5, cap_s=8.0, max_attempts=4)


class Transport:
    """A server and a token: the way of every call. Thread-safe, picklable, silent until the first call.

    Args:
        server: `http(s)://host[:port][/prefix]`; trailing slashes are dropped.
        token: sent as the query parameter `token`, as the protocol demands, and shown to nobody else.
        creator: what the server notes as the maker of tags and datasets.
        ca_certs: file of certificate authorities to trust besides the usual ones, see `build_trust`.
        connect_timeout_s: longest wait for a connection, in seconds.
        read_timeout_s: longest silence of the server, in seconds.
        answer_timeout_s: longest time from the request to the last byte of its answer, in seconds.
        retry: waits between the tries of one call.
        retry_total_s: no new try begins later than this after the first one. A `Retry-After` is the floor of a
            wait; one that does not fit in here ends the call with an error that carries it.
        pool_size: connections kept open to one host.
        clock: where time comes from.
        rng: jitter.
        observer: called after each try, in the thread of the call; must be quick and must not raise.
        tracer: makes a span of each try of an API call, and lets the server join the trace.
        stop: once set, waits between tries end at once with `CancelledError`.

    GET, PUT and DELETE are tried again after a failed connection, a broken answer, 429, 500, 502, 503 and 504.
    POST only when nothing was sent, and after 429 and 503. No redirect of an API call is followed.

    Raises:
        ConfigError: a server that is no http(s) address; a token that is blank, holds blanks, control characters
            or characters beyond Latin-1.
    """

    def __init__(
        self,
        *,
        server: str,
        token: str,
        creator: Creator = "USER_PIP",
        ca_certs: str | os.PathLike[str] | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 60.0,
        answer_timeout_s: float = 300.0,
        retry: Backoff = DEFAULT_RETRY,
        retry_total_s: float = 60.0,
        pool_size: int = 16,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        observer: Callable[[RequestSeen], None] | None = None,
        tracer: RequestTracer | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.server = check_server(server)
        self.secret = Token(token)
        self.creator = creator
        self.answer_timeout_s = answer_timeout_s
        self.retry = retry
        self.retry_total_s = retry_total_s
        self.clock: Clock = clock or SystemClock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._observer = observer
        self._tracer = tracer
        self._stop = stop
        self._pooling: dict[str, Any] = {
            "trust": build_trust(besides=ca_certs),
            "connect_timeout_s": connect_timeout_s,
            "read_timeout_s": read_timeout_s,
            "pool_size": pool_size,
        }
        self._build_parts()

    def _build_parts(self) -> None:
        self.connections = Connections(**self._pooling, clock=self.clock)
        self._stop = self._stop or threading.Event()
        self._missing: set[str] = set()
        self._numbers = RequestNumbers()
        self._last_date: tuple[str, float, float] | None = None

    def __repr__(self) -> str:
        return f"Transport(server={redact(self.server)!r})"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what belongs to this process: connections, observer, tracer, the stop event."""
        state = self.__dict__.copy()
        for name in ("connections", "_missing", "_last_date", "_numbers"):
            state.pop(name)
        state["_stop"] = state["_observer"] = state["_tracer"] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build_parts()

    def traced_by(self, tracer: RequestTracer) -> Transport:
        """The same transport, sharing its connections, whose requests become spans of `tracer`."""
        twin = object.__new__(type(self))
        twin.__dict__ = {**self.__dict__, "_tracer": tracer}
        return twin

    @property
    def token(self) -> str:
        """The token."""
        return self.secret.value

    def close(self) -> None:
        """Closes idle connections; the object stays usable."""
        self.connections.close()

    def get_json(
        self,
        path_template: str,
        *,
        type: type[T],  # noqa: A002 - reads as what it is
        path_params: Mapping[str, str] | None = None,
        query: Mapping[str, QueryValue] | None = None,
    ) -> T:
        """GETs a path and decodes its answer.

        Args:
            path_template: `/v1/datasets/{datasetId}/tags`; also the name of the call in metrics and errors.
            type: shape of the answer.
            path_params: values of the template's fields; percent-encoded, `/` included.
            query: parameters; absent values are left out, booleans become `True` and `False`.

        Raises:
            ApiException: the server answered with an error.
            ProtocolError: the answer is not of this shape.
            TransportError: no complete answer, after all tries.
        """
        answer = self.call("GET", path_template, path_params=path_params, query=query)
        return decode(answer, type, what=f"GET {path_template}")

    def send_json(
        self,
        method: str,
        path_template: str,
        *,
        type: type[T],  # noqa: A002 - as above
        path_params: Mapping[str, str] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        body: Any = None,
        idempotent: bool | None = None,
    ) -> T:
        """Sends a body and decodes the answer; see `get_json` and `call`."""
        answer = self.call(
            method, path_template, path_params=path_params, query=query, body=body, idempotent=idempotent
        )
        return decode(answer, type, what=f"{method} {path_template}")

    def send(
        self,
        method: str,
        path_template: str,
        *,
        path_params: Mapping[str, str] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        body: Any = None,
        idempotent: bool | None = None,
    ) -> None:
        """Sends a body; whatever a success says is not read. See `get_json` and `call`."""
        self.call(
            method, path_template, path_params=path_params, query=query, body=body, idempotent=idempotent
        )

    def call(
        self,
        method: str,
        path_template: str,
        *,
        path_params: Mapping[str, str] | None = None,
        query: Mapping[str, QueryValue] | None = None,
        body: Any = None,
        idempotent: bool | None = None,
        authenticated: bool = True,
    ) -> Answer:
        """Calls an endpoint, with retries.

        Args:
            method: GET, PUT, POST, DELETE.
            path_template: see `get_json`.
            path_params: see `get_json`.
            query: see `get_json`.
            body: anything msgspec encodes; absent for no body.
            idempotent: whether a repetition does no harm; absent: as the method says.
            authenticated: whether the token is sent.

        Raises:
            NotSentError: the server was never reached.
            UnknownOutcomeError: a call that changes something may have been carried out.
            TransportError: no complete answer to a GET.
            ApiException: an answer that is no success.
            ProtocolError: a redirect, or an answer beyond all measure.
            CancelledError: `stop` was set during a wait.
        """
        endpoint = f"{method} {path_template}"
        content = None if body is None else msgspec.json.encode(body)
        repeatable = method != "POST" if idempotent is None else idempotent

        def attempt() -> Answer:
            while True:
                token = self.secret.value
                asked = {**(query or {}), "token": token if authenticated else None}
                try:
                    url = build_url(self.server, path_template, path_params or {}, asked)
                    return self._attempt(method, endpoint, url, content)
                except UnauthorizedException:
                    if not authenticated or self.secret.value == token:
                        raise

        try:
            return self.run_with_retries(attempt, repeatable=repeatable)
        except UnknownOutcomeError as error:
            # A plain GET has no outcome beside its answer; one that is not repeatable has.
            lost: TransportError = TransportError(*error.args) if method == "GET" and repeatable else error
            lost.retry_after_s, lost.request_id = error.retry_after_s, error.request_id
        raise lost

    def run_with_retries(self, attempt: Callable[[], T], *, repeatable: bool) -> T:
        """Runs `attempt` until it succeeds, fails for good, or the schedule of `retry` is used up.

        Args:
            attempt: makes one try.
            repeatable: whether it may be repeated when it may have had an effect.
        """
        begun_s = self.clock.monotonic_s()
        number = 1
        while True:
            self._numbers.begin_try(number)
            try:
                return attempt()
            except (TransportError, ApiException) as error:
                failure: WatcherError = error
            if self.retry.is_exhausted(attempt=number) or not may_repeat(failure, repeatable=repeatable):
                raise failure
            delay_s = self.retry.compute_delay_s(
                attempt=number, jitter=self._rng.random(), floor_s=failure.retry_after_s
            )
            if self.clock.monotonic_s() - begun_s + delay_s > self.retry_total_s:
                raise failure
            self.wait_s(delay_s)
            number += 1

    def wait_s(self, seconds: float) -> None:
        """Waits; ends early with CancelledError when the `stop` of the transport is set."""
        if self._stop is not None and self.clock.wait_s(self._stop, seconds):
            raise CancelledError("asked to stop while waiting for the server; run it again to go on")

    def lacks(self, endpoint: str) -> bool:
        """Whether this server was found to know no such endpoint; remembered for the life of the transport."""
        return endpoint in self._missing

    def remember_missing(self, endpoint: str) -> None:
        """Notes that this server knows no such endpoint."""
        self._missing.add(endpoint)

    def server_now_s(self) -> int | None:
        """The server's time by its last `Date` header and the time passed since, unix seconds.

        A lower bound: the server's clock shows this second or a later one. None before the first answer.
        """
        seen = self._last_date
        if seen is None:
            return None
        date_s = parse_http_date(seen[0])
        return None if date_s is None else int(date_s + (self.clock.monotonic_s() - seen[1]))

    def fetch_server_time(
        self, path_template: str = "/v1/quota", *, path_params: Mapping[str, str] | None = None
    ) -> ServerTime:
        """Asks the server for its time: one GET of `path_template`, of which only the `Date` header counts.

        Raises:
            ProtocolError: the answer has no readable `Date` header.
        """
        answer = self.call("GET", path_template, path_params=path_params)
        date_s = parse_http_date(answer.headers.get("Date"))
        if date_s is None:
            raise ProtocolError(f"GET {path_template}: the answer has no readable Date header")
        return ServerTime(date_s=date_s, local_s=self.clock.now_s(), monotonic_s=self.clock.monotonic_s())

    @contextmanager
    def open_read_url(self, url: str, *, deadline_s: float | None = None) -> Iterator[ReadStream]:
        """Opens what a signed read URL names, for reading in pieces; see `signed_urls.open_read_url`."""
        with signed_urls.open_read_url(self, url, timeout_s=deadline_s) as stream:
            yield stream

    def read_url_bytes(self, url: str, *, max_bytes: int) -> ReadResult:
        """Reads all that a signed read URL names, with retries; see `signed_urls.read_url_bytes`."""
        return signed_urls.read_url_bytes(self, url, max_bytes=max_bytes)

    def put_signed_url(
        self,
        url: str,
        open_body: Callable[[], BinaryIO],
        size: int,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """PUTs `size` bytes to a signed write URL, with retries; see `signed_urls.put_signed_url`."""
        return signed_urls.put_signed_url(self, url, open_body, size, headers)

    def observe(
        self, endpoint: str, code: str, begun_s: float, *, n_sent_bytes: int = 0, n_received_bytes: int = 0
    ) -> None:
        """Tells the observer of a try that began at the monotonic reading `begun_s`."""
        if self._observer is not None:
            self._observer(
                RequestSeen(
                    endpoint,
                    code,
                    self.clock.monotonic_s() - begun_s,
                    self._numbers.is_retry,
                    n_sent_bytes,
                    n_received_bytes,
                )
            )

    def hide_secrets(self, text: str) -> str:
        """The text without the token and without queries of URLs."""
        return redact(self.secret.hide(text))

    def _attempt(self, method: str, endpoint: str, url: str, content: bytes | None) -> Answer:
        request_id = self._numbers.next_id()
        try:
            if self._tracer is None:
                return self._exchange(method, endpoint, url, content, {REQUEST_ID_HEADER: request_id})
            with self._tracer.span(endpoint, request_id=request_id) as joining:
                return self._exchange(
                    method, endpoint, url, content, {REQUEST_ID_HEADER: request_id, **joining}
                )
        except WatcherError as error:
            error.request_id = request_id
            raise

    def _exchange(
        self, method: str, endpoint: str, url: str, content: bytes | None, headers: dict[str, str]
    ) -> Answer:
        headers |= {
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "User-Agent": f"datasource-watcher/{__version__}",
        }
        if content is not None:
            headers["Content-Type"] = "application/json"
        if content is not None or method in ("POST", "PUT"):
            headers["Content-Length"] = str(len(content or b""))
        begun_s = self.clock.monotonic_s()
        code, n_received = "error", 0
        try:
            response = self.connections.exchange(
                method,
                url,
                headers=headers,
                body=content,
                deadline_s=begun_s + self.answer_timeout_s,
                what=endpoint,
            )
            with response:
                answer = read_answer(response, endpoint)
                code, n_received = str(answer.status), len(answer.body)
        finally:
            self.observe(
                endpoint, code, begun_s, n_sent_bytes=len(content or b""), n_received_bytes=n_received
            )
        if date := answer.headers.get("Date"):
            self._last_date = (date, self.clock.monotonic_s(), 0.0)
        if 200 <= answer.status < 300:
            return answer
        if 300 <= answer.status < 400:
            raise ProtocolError(describe_redirect(answer, endpoint))
        raise build_exception(
            answer,
            reason=response.reason or "",
            request=endpoint,
            now_s=self.clock.now_s(),
            hide=self.hide_secrets,
        )
