"""What comes back from a server: decoding, error bodies, dates, all of it distrusted."""

from __future__ import annotations

import email.utils
import functools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
import requests

from watcher.domain.errors import (
    ApiException,
    NotSentError,
    ProtocolError,
    TransportError,
    UnknownOutcomeError,
    WatcherError,
    build_api_exception,
)
from watcher.domain.redaction import redact
from watcher.lightly.connections import read_chunk
from watcher.lightly.wire.errors import ApiError

T = TypeVar("T")

MAX_ANSWER_BYTES = 1 << 29
MAX_ERROR_BYTES = 2000
_CHUNK_BYTES = 1 << 20
_RETRIED_STATUSES = frozenset({429, 500, 502, 503, 504})
_RETRIED_UNSENT_STATUSES = frozenset({429, 503})
# Errors whose status says all there is to know; of others the code in the body decides what to do.
_TELLING_STATUSES = frozenset({401, 408, 429})
_MISSING_STATUSES = frozenset({404, 405, 501})
_GENERIC_CODES = frozenset({None, "", "BAD_REQUEST", "NOT_FOUND", "NOT_IMPLEMENTED", "MALFORMED_REQUEST"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete successful answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def build_exception(
    answer: Answer, *, reason: str, request: str, now_s: float, hide: Callable[[str], str]
) -> ApiException:
    """Makes the exception of an answer that is no success.

    Args:
        answer: its body may be the protocol's error object, or anything else.
        reason: HTTP reason phrase.
        request: names the call.
        now_s: unix time, for a `Retry-After` given as a date.
        hide: takes secrets out of texts.
    """
    try:
        fields = msgspec.json.decode(answer.body, type=dict[str, Any])
        error = msgspec.convert(fields, ApiError)
        text, code = error.error or error.message, error.code if "code" in fields else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        text, code = "", None
    # Cut before secrets are looked for, which takes longer the longer the text; cut again behind the last look.
    text = (text or answer.body[: 2 * MAX_ERROR_BYTES].decode("utf-8", "replace"))[: 2 * MAX_ERROR_BYTES]
    return build_api_exception(
        answer.status,
        hide(reason[:200]),
        body=hide(text)[:MAX_ERROR_BYTES],
        headers={name: hide(value[:MAX_ERROR_BYTES]) for name, value in answer.headers.items()},
        code=code and hide(code[:100]),
        request=request,
        retry_after_s=parse_retry_after_s(answer.headers, now_s=now_s),
    )


def may_repeat(error: WatcherError, *, repeatable: bool) -> bool:
    """Whether a try may be made again: `repeatable` tells whether the call does no harm twice."""
    if isinstance(error, ApiException):
        return error.status in (_RETRIED_STATUSES if repeatable else _RETRIED_UNSENT_STATUSES)
    return repeatable or isinstance(error, NotSentError)


def is_missing_endpoint(error: ApiException) -> bool:
    """Whether an error means that the server knows no such endpoint, rather than no such thing."""
    return error.status in _MISSING_STATUSES and error.code in _GENERIC_CODES


def decode(answer: Answer, type: type[T], *, what: str) -> T:  # noqa: A002 - reads as what it is
    """Decodes a JSON answer.

    Raises:
        ProtocolError: it is no JSON, or not of this shape.
    """
    try:
        decoded: T = _get_decoder(cast("Hashable", type)).decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = str(error)
    else:
        return decoded
    kind = answer.headers.get("Content-Type") or "nothing it would name"
    raise ProtocolError(
        f"{what}: the answer ({answer.status}, {len(answer.body)} bytes of {redact(kind)[:100]}) does not follow "
        f"the protocol: {redact(reason)[:300]}. Does LIGHTLY_SERVER_LOCATION name an API server?"
    )


@functools.cache
def _get_decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(cast("Any", kind))


def parse_retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """Seconds that a `Retry-After` header asks for, given as a number or as a date; None without a readable one."""
    text = (headers.get("Retry-After") or "").strip()
    if text.isdecimal() and len(text) < 10:
        return float(text)
    date_s = parse_http_date(text)
    if date_s is None:
        return None
    server_now_s = parse_http_date(headers.get("Date"))
    return max(0.0, date_s - (now_s if server_now_s is None else server_now_s))


def parse_http_date(text: str | None) -> int | None:
    """Unix seconds of an HTTP date; None when it is missing or unreadable."""
    try:
        return int(email.utils.parsedate_to_datetime(text or "").timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def read_answer(response: requests.Response, endpoint: str) -> Answer:
    """Reads the whole body of an answer; where the status says enough, as much of the body as arrives.

    Raises:
        UnknownOutcomeError: the body broke off, of a success, or of a refusal whose code was in it.
        ProtocolError: the answer is longer than `MAX_ANSWER_BYTES`.
    """
    chunks = []
    n_bytes = 0
    broken: str | None = None
    while broken is None:
        try:
            chunk = read_chunk(response, _CHUNK_BYTES, what=endpoint)
        except TransportError as error:
            broken = str(error)
            break
        if not chunk:
            break
        n_bytes += len(chunk)
        if n_bytes > MAX_ANSWER_BYTES:
            raise ProtocolError(f"{endpoint}: the answer is longer than {MAX_ANSWER_BYTES} bytes")
        chunks.append(chunk)
    if broken is not None and response.status_code < 500 and response.status_code not in _TELLING_STATUSES:
        raise UnknownOutcomeError(broken)
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return Answer(status=response.status_code, headers=response.headers, body=body)


def describe_redirect(answer: Answer, endpoint: str) -> str:
    """What to tell about a redirect of an API call: where to, without its query, and what to do."""
    target = answer.headers.get("Location") or ""
    try:
        host = urlsplit(target).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return (
        f"{endpoint}: the server redirects ({answer.status}) to {host or 'another path'}; redirects of API calls are "
        "not followed, so that no token goes astray: set LIGHTLY_SERVER_LOCATION to the address of the API itself"
    )
