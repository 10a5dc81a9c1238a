"""What a handler gets, what it gives back, and how an operation is declared.

One declaration serves the routing, the checking of arguments, and `/openapi.json`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from watcher.platform.faults import invalid, too_large

if TYPE_CHECKING:
    from watcher.platform.context import Platform
    from watcher.platform.store.users import User

_T = TypeVar("_T")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_TRUE = frozenset(("true", "1"))
_FALSE = frozenset(("false", "0"))


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read completely.

    Attributes:
        user: whose token it carries; absent on public operations.
        path: parameters of the path.
        query: parameters of the query, the last value of each.
        body: the JSON body as sent.
        url_base: what signed URLs start with, without a slash at the end.
        now_s: the time of the request, unix seconds.
    """

    platform: Platform
    user: User | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    url_base: str
    now_s: float

    @property
    def now_ms(self) -> int:
        """The time of the request in milliseconds."""
        return int(self.now_s * 1000)

    @property
    def caller(self) -> User:
        """The user; only for operations that need a token."""
        if self.user is None:
            raise LookupError("a public operation asked for its user")
        return self.user

    def read(self, shape: type[_T]) -> _T:
        """The body in the given shape."""
        try:
            return msgspec.json.decode(self.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid(f"the body does not fit this call: {error}") from error


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer in pieces, so that memory does not grow with its length."""

    chunks: Iterator[bytes]
    media_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Redirect:
    """302 to a URL."""

    url: str


@dataclass(frozen=True, slots=True)
class Query(Generic[_T]):
    """A parameter of the query."""

    name: str
    parse: Callable[[str], _T]
    schema: Mapping[str, Any]
    required: bool = False

    def of(self, call: Call) -> _T | None:
        """The value, or None if it was not sent."""
        text = call.query.get(self.name)
        if text is None:
            if self.required:
                raise invalid(f"the parameter {self.name} is missing")
            return None
        try:
            return self.parse(text)
        except ValueError as error:
            raise invalid(f"the parameter {self.name} {error}") from error

    def must(self, call: Call) -> _T:
        """The value of a required parameter."""
        value = self.of(call)
        if value is None:
            raise invalid(f"the parameter {self.name} is missing")
        return value


def integer(name: str, *, minimum: int = 0, maximum: int = 10**15, required: bool = False) -> Query[int]:
    """A whole number."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"must be a whole number between {minimum} and {maximum}")
        return int(text)

    return Query(name, parse, {"type": "integer", "minimum": minimum, "maximum": maximum}, required)


def boolean(name: str, *, required: bool = False) -> Query[bool]:
    """`true` or `false` in any case: the official clients send capitals."""

    def parse(text: str) -> bool:
        lowered = text.lower()
        if lowered in _TRUE:
            return True
        if lowered in _FALSE:
            return False
        raise ValueError("must be true or false")

    return Query(name, parse, {"type": "boolean"}, required)


def text(name: str, *, min_length: int = 0, max_length: int = 4096, required: bool = False) -> Query[str]:
    """A text without NUL."""

    def parse(value: str) -> str:
        if not min_length <= len(value) <= max_length or "\0" in value:
            raise ValueError(f"must have {min_length} to {max_length} characters and no NUL")
        check_unicode(value)
        return value

    schema = {"type": "string", "minLength": min_length, "maxLength": max_length}
    return Query(name, parse, schema, required)


def choice(name: str, *values: str, required: bool = False) -> Query[str]:
    """One of a closed set."""

    def parse(value: str) -> str:
        if value not in values:
            raise ValueError(f"must be one of {', '.join(values)}")
        return value

    return Query(name, parse, {"type": "string", "enum": list(values)}, required)


def check_unicode(value: str) -> None:
    """Raises ValueError for text that has no UTF-8 form."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("is not valid UTF-8") from error


PAGE_SIZE = integer("pageSize", minimum=1)
PAGE_OFFSET = integer("pageOffset")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        name: the protocol's operation id.
        handler: gives the reply: a shape, JSON bytes, text, a `Stream`, a `Redirect`, or None for an empty body.
        reply: shape of the reply, or a tuple of alternatives, for `/openapi.json`.
        body: shape of the body; None if there is none to read.
        public: needs no token.
        own: not part of the protocol of the original.
        codes: refusals that only some operations know.
    """

    method: str
    path: str
    name: str
    handler: Callable[[Call], Any]
    summary: str
    reply: Any = None
    body: Any = None
    query: tuple[Query[Any], ...] = ()
    status: int = 200
    public: bool = False
    own: bool = False
    codes: tuple[int, ...] = field(default=())


def check_size(value: bytes | str | None, limit: int, what: str, code: str) -> None:
    """Raises 413 if the value is longer than `limit`."""
    if value is not None and len(value) > limit:
        raise too_large(f"{what} is longer than {limit} bytes", code)
