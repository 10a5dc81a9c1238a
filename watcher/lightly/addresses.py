"""Addresses: of servers, of endpoints, and signed ones, which are sent byte for byte."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from watcher.domain.errors import ConfigError

QueryValue = str | int | float | bool | None

_UNSENDABLE = re.compile(r"[^\x21-\x7e]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def split_address(url: str) -> tuple[str, str, str]:
    """Cuts an absolute URL into the part that may be shown, the request target, and the whole to be sent.

    Raises:
        ConfigError: not an http or https URL with a host.
    """
    if _CONTROL.search(url):
        raise ConfigError("an address holds a line break or another control character")
    try:
        parts = urlsplit(url)
        scheme, host, _port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        scheme, host = "", None
    if scheme not in ("http", "https") or not host:
        raise ConfigError("not an http or https address with a host name")
    start = url.index("://") + 3
    end = min((at for at in (url.find(mark, start) for mark in "/?#") if at >= 0), default=len(url))
    origin = url[:end]
    target = url[end:].split("#", 1)[0]
    if not target.startswith("/"):
        target = "/" + target
    target = _UNSENDABLE.sub(lambda found: quote(found[0], safe=""), target)
    return origin + target.split("?", 1)[0], target, origin + target


def check_server(server: str) -> str:
    """The server's address without trailing slashes.

    Raises:
        ConfigError: not an http(s) address, or one with a user, a query or a fragment.
    """
    text = server.strip().rstrip("/")
    try:
        split_address(text)
    except ConfigError as error:
        reason = str(error)
    else:
        parts = urlsplit(text)
        if not (parts.query or parts.fragment or parts.username or parts.password):
            return text
        reason = "it must hold no user, query or fragment"
    raise ConfigError(f"LIGHTLY_SERVER_LOCATION is not a usable address: {reason}")


def check_token(token: str) -> str:
    """The token as it is.

    Raises:
        ConfigError: it is blank, or holds blanks, control characters or characters beyond Latin-1.
    """
    if not token:
        raise ConfigError("no token: give one, or set LIGHTLY_TOKEN")
    if any(char.isspace() or not char.isprintable() or ord(char) > 0xFF for char in token):
        raise ConfigError(
            "the token holds blanks, line breaks or unusual characters; check how LIGHTLY_TOKEN was copied"
        )
    return token


def build_url(
    server: str,
    path_template: str,
    path_params: Mapping[str, str],
    query: Mapping[str, QueryValue],
) -> str:
    """The address of a call.

    Args:
        server: what `check_server` gave.
        path_template: `/v1/datasets/{datasetId}/tags`.
        path_params: values of its fields; percent-encoded, `/` included.
        query: parameters; absent values are left out, booleans become `True` and `False`.

    Raises:
        ConfigError: a value that would make the path another one.
    """
    for name, value in path_params.items():
        if value in ("", ".", ".."):
            raise ConfigError(f"{path_template}: {name} must not be {value!r}")
    path = path_template.format_map({name: quote(value, safe="") for name, value in path_params.items()})
    pairs = [(name, str(value)) for name, value in query.items() if value is not None]
    return f"{server}{path}?{urlencode(pairs, quote_via=quote)}" if pairs else server + path
