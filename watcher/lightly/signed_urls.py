"""Reading and writing objects through signed URLs, which carry their permission in their query.

No token goes along, the URL is sent as it was signed, and no message shows more of it than its host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote, unquote_plus, urljoin, urlsplit

import requests

from watcher import __version__
from watcher.domain.errors import (
    ApiException,
    ConfigError,
    DatasetError,
    ImageError,
    ProtocolError,
    ReadUrlRefusedError,
    SampleGoneError,
    TransportError,
    UnknownOutcomeError,
)
from watcher.lightly.answers import MAX_ERROR_BYTES, Answer, build_exception, parse_http_date
from watcher.lightly.connections import read_chunk

if TYPE_CHECKING:
    from watcher.lightly.transport import Transport

READ_ENDPOINT = "GET read-url"
WRITE_ENDPOINT = "PUT write-url"
_CHUNK_BYTES = 1 << 18
_MAX_REDIRECTS = 5
_SLOWEST_READ_BYTES_PER_S = 1 << 20
_SLOWEST_WRITE_BYTES_PER_S = 1 << 16
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class ReadResult:
    """An object that was read.

    Attributes:
        body: its bytes.
        last_modified_s: its `Last-Modified`, unix seconds, if told.
        etag: its `ETag`, if told.
        size: length of `body` in bytes.
    """

    body: bytes
    last_modified_s: int | None
    etag: str | None
    size: int


class ReadStream:
    """An object that is being read.

    Attributes:
        size: its length in bytes, if told and if it comes unpacked.
        last_modified_s: its `Last-Modified`, unix seconds, if told.
        etag: its `ETag`, if told.
    """

    def __init__(self, response: requests.Response, what: str) -> None:
        self._response = response
        self._what = what
        headers = response.headers
        length = headers.get("Content-Length") or ""
        packed = (headers.get("Content-Encoding") or "identity").lower() != "identity"
        self.size = int(length) if length.isdecimal() and len(length) < 20 and not packed else None
        self.etag = headers.get("ETag")
        self.last_modified_s = parse_http_date(headers.get("Last-Modified"))

    def read(self, n_bytes: int) -> bytes:
        """Up to `n_bytes` more bytes; fewer only at the end.

        Raises:
            TransportError: the connection failed, the deadline passed, or fewer bytes came than announced.
        """
        return read_chunk(self._response, n_bytes, what=self._what)

    def __iter__(self) -> Iterator[bytes]:
        """The bytes in pieces of 256 kB."""
        while chunk := self.read(_CHUNK_BYTES):
            yield chunk


@contextmanager
def open_read_url(transport: Transport, url: str, *, timeout_s: float | None = None) -> Iterator[ReadStream]:
    """Opens what a signed read URL names; opening is tried again, reading is the caller's.

    Redirects are followed, since some servers sign that way, but never from https to http.

    Args:
        transport: lends connections, retries and time limits.
        url: sent byte for byte.
        timeout_s: time for one try, from the request to the last byte; absent: the transport's.

    Raises:
        ReadUrlRefusedError: 401, 403, or a 400 that speaks of expiry: get a fresh URL.
        SampleGoneError: 404 or 410.
        ApiException: any other status that is no success.
        TransportError: no complete answer.
    """
    response = transport.run_with_retries(
        lambda: _open_once(transport, url, timeout_s or transport.answer_timeout_s), repeatable=True
    )
    with response:
        yield ReadStream(response, _name(READ_ENDPOINT, url))


def read_url_bytes(
    transport: Transport, url: str, *, max_bytes: int, on_size: Callable[[int], None] | None = None
) -> ReadResult:
    """Reads all that a signed read URL names, with retries.

    Args:
        transport: lends connections, retries and time limits.
        url: sent byte for byte.
        max_bytes: reading ends with an error as soon as there is more than this.
        on_size: called before each try's body is read with the length that was announced, or `max_bytes` if none was.

    Raises:
        ImageError: the object is too large.
        ReadUrlRefusedError, SampleGoneError, ApiException, TransportError: see `open_read_url`.
    """
    timeout_s = transport.answer_timeout_s + max_bytes / _SLOWEST_READ_BYTES_PER_S

    def read_once() -> ReadResult:
        response = _open_once(transport, url, timeout_s)
        with response:
            stream = ReadStream(response, _name(READ_ENDPOINT, url))
            if stream.size is not None and stream.size > max_bytes:
                raise ImageError(f"too large: {stream.size} bytes, {max_bytes} allowed (max_bytes)")
            if on_size is not None:
                on_size(max_bytes if stream.size is None else stream.size)
            chunks = []
            n_bytes = 0
            while chunk := stream.read(min(_CHUNK_BYTES, max_bytes + 1 - n_bytes)):
                n_bytes += len(chunk)
                if n_bytes > max_bytes:
                    raise ImageError(f"too large: more than {max_bytes} bytes")
                chunks.append(chunk)
        return ReadResult(
            body=b"".join(chunks), last_modified_s=stream.last_modified_s, etag=stream.etag, size=n_bytes
        )

    return transport.run_with_retries(read_once, repeatable=True)


def put_signed_url(
    transport: Transport,
    url: str,
    open_body: Callable[[], BinaryIO],
    size: int,
    headers: Mapping[str, str] | None = None,
) -> requests.Response:
    """PUTs a body to a signed write URL, with retries; repeating it is harmless.

    Args:
        transport: lends connections, retries and time limits.
        url: sent byte for byte.
        open_body: opens the body at its start; called anew for each try.
        size: length of the body in bytes; a body that turns out shorter or longer is an error.
        headers: sent besides `Content-Length`.

    Returns:
        The answer, its body read.

    Raises:
        DatasetError: the body has another length than `size`.
        ApiException: the store refused; 401 and 403 mostly mean that the URL expired.
        UnknownOutcomeError: the connection failed while or after sending.
        NotSentError: the store could not be reached.
    """
    timeout_s = transport.answer_timeout_s + size / _SLOWEST_WRITE_BYTES_PER_S
    all_headers = {**_build_headers(), **(headers or {}), "Content-Length": str(size)}

    def put_once() -> requests.Response:
        target = url
        for _ in range(_MAX_REDIRECTS + 1):
            with open_body() as file:
                body = _MeasuredBody(file, size, transport, timeout_s)
                response = _exchange(
                    transport,
                    "PUT",
                    target,
                    headers=all_headers,
                    body=body if size else None,  # type: ignore[arg-type] # a stream for the connection
                    endpoint=WRITE_ENDPOINT,
                    timeout_s=timeout_s,
                )
            if response.status_code not in (307, 308):
                break
            target = _follow(response, target, WRITE_ENDPOINT)
        else:
            raise ProtocolError(f"{_name(WRITE_ENDPOINT, url)}: redirected too often")
        with response:
            response._content = _read_some(response, MAX_ERROR_BYTES)  # noqa: SLF001 - an answer kept short
        if 200 <= response.status_code < 300:
            body.check_end()
            return response
        raise _build_exception(transport, response, WRITE_ENDPOINT, target)

    return transport.run_with_retries(put_once, repeatable=True)


class _MeasuredBody:
    """A file that must be exactly as long as was said, and must be taken before the deadline."""

    def __init__(self, file: BinaryIO, size: int, transport: Transport, timeout_s: float) -> None:
        self._file = file
        self._size = size
        self._n_read = 0
        self._clock = transport.clock
        self._deadline_s = transport.clock.monotonic_s() + timeout_s

    def read(self, n_bytes: int) -> bytes:
        if self._clock.monotonic_s() > self._deadline_s:
            raise TimeoutError("the body was not taken in time")
        chunk = self._file.read(min(n_bytes, self._size - self._n_read))
        self._n_read += len(chunk)
        if not chunk and self._n_read < self._size:
            raise DatasetError(
                f"a file to upload has {self._n_read} bytes instead of {self._size}: it changed meanwhile"
            )
        if self._n_read == self._size and chunk:
            self.check_end()
        return chunk

    def check_end(self) -> None:
        if not self._file.closed and self._file.read(1):
            raise DatasetError(
                f"a file to upload is longer than its {self._size} bytes: it changed meanwhile"
            )


def _open_once(transport: Transport, url: str, timeout_s: float) -> requests.Response:
    target = url
    for _ in range(_MAX_REDIRECTS + 1):
        try:
            response = _exchange(
                transport,
                "GET",
                target,
                headers={**_build_headers(), "Accept": "*/*", "Accept-Encoding": "identity"},
                body=None,
                endpoint=READ_ENDPOINT,
                timeout_s=timeout_s,
            )
        except UnknownOutcomeError as error:
            lost = TransportError(*error.args)
        else:
            if response.status_code not in _REDIRECTS:
                return _check_read(transport, response, target)
            target = _follow(response, target, READ_ENDPOINT)
            continue
        raise lost
    raise ProtocolError(f"{_name(READ_ENDPOINT, url)}: redirected too often")


def _check_read(transport: Transport, response: requests.Response, url: str) -> requests.Response:
    if 200 <= response.status_code < 300:
        return response
    with response:
        response._content = _read_some(response, MAX_ERROR_BYTES)  # noqa: SLF001 - an answer kept short
    error = _build_exception(transport, response, READ_ENDPOINT, url)
    status = response.status_code
    if status in (401, 403) or (status == 400 and "xpired" in error.body):
        raise ReadUrlRefusedError(
            f"the read URL at {_get_host(url)} is refused ({status}): list it again for a fresh one"
        )
    if status in (404, 410):
        raise SampleGoneError(f"the object is no longer at {_get_host(url)} ({status})")
    raise error


def _exchange(
    transport: Transport,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: BinaryIO | None,
    endpoint: str,
    timeout_s: float,
) -> requests.Response:
    begun_s = transport.clock.monotonic_s()
    code, n_received = "error", 0
    try:
        response = transport.connections.exchange(
            method,
            url,
            headers=headers,
            body=body,
            deadline_s=begun_s + timeout_s,
            what=_name(endpoint, url),
        )
        code = str(response.status_code)
        n_received = parse_length(response.headers.get("Content-Length"))
    finally:
        n_sent = parse_length(headers.get("Content-Length"))
        transport.observe(endpoint, code, begun_s, n_sent_bytes=n_sent, n_received_bytes=n_received)
    return response


def parse_length(value: str | None) -> int:
    """A `Content-Length`; 0 if it was not told or makes no sense."""
    return int(value) if value and value.isdecimal() and len(value) < 20 else 0


def _follow(response: requests.Response, url: str, endpoint: str) -> str:
    response.close()
    location = response.headers.get("Location") or ""
    try:
        target = location if "://" in location else urljoin(url, location)
        scheme = urlsplit(target).scheme.lower()
    except ValueError:
        scheme = ""
    if not location or scheme not in ("http", "https"):
        raise ProtocolError(f"{_name(endpoint, url)}: redirected to nowhere")
    if url.lower().startswith("https:") and scheme == "http":
        raise ProtocolError(f"{_name(endpoint, url)}: redirected from https to http, which is not followed")
    return target


def _build_exception(
    transport: Transport, response: requests.Response, endpoint: str, url: str
) -> ApiException:
    answer = Answer(status=response.status_code, headers=response.headers, body=response.content)
    return build_exception(
        answer,
        reason=response.reason or "",
        request=_name(endpoint, url),
        now_s=transport.clock.now_s(),
        hide=lambda text: transport.hide_secrets(_hide_query(text, url)),
    )


def _hide_query(text: str, url: str) -> str:
    """Stores like to repeat a refused request, signature included, in their own words."""
    query = urlsplit(url).query
    secrets = {query, unquote(query)}
    for part in query.split("&"):
        value = part.partition("=")[2]
        secrets |= {value, unquote(value), unquote_plus(value)}
    for secret in sorted((secret for secret in secrets if len(secret) >= 8), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _read_some(response: requests.Response, n_bytes: int) -> bytes:
    try:
        return read_chunk(response, n_bytes, what="")
    except TransportError:
        return b""


def _build_headers() -> dict[str, str]:
    return {"User-Agent": f"datasource-watcher/{__version__}"}


def _name(endpoint: str, url: str) -> str:
    return f"{endpoint} at {_get_host(url)}"


def _get_host(url: str) -> str:
    try:
        return urlsplit(url).hostname or "no host"
    except ValueError:
        raise ConfigError("a signed URL is not a usable address") from None
