"""Takes tokens and signed queries out of text.

A signed URL is a secret in its query string, whoever signed it, so the whole query of every URL goes, and so do
the values of parameters that carry tokens wherever they stand. Every pattern takes time linear in the text.
"""

from __future__ import annotations

import re

_HIDDEN = "***"

# From `://` on, so that no start of a scheme has to be searched for in a long run of letters.
_URL = re.compile(r"(postgres[a-z0-9+]{0,20})?://([^\s\"'<>]*)", re.IGNORECASE)
_AUTHORITY_END = re.compile(r"[/?#]|$")
# A colon alone is no assignment: "the server refuses the token: check it" is prose, a value has digits or is long.
_PARAMETER = re.compile(
    r"((?:token|signature|sig|credential|password|passwd|secret|(?:access|account|api)[_-]?key)"
    r"(?:(?:\\?[\"'])?\s{0,3}(?:=|%3D)\s{0,3}|\\?[\"']\s{0,3}:\s{0,3}|\s{0,3}:\s{0,3}(?=[\"']|\S{0,200}\d|\S{16})))"
    r"(?:(\\?\")[^\"]*(?:\"|$)|(\\?')[^']*(?:'|$)|[^\s&\"'<>)}]+)",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"((?:bearer\s{1,3}){1,4}|authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?\w{1,20}\s{1,3})[^\s\"',]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text without query strings of URLs, user parts of URLs, bearer tokens and token parameters."""
    text = _URL.sub(_hide_in_url, text)
    text = _PARAMETER.sub(_hide_value, text)
    return _AUTHORIZATION.sub(rf"\1{_HIDDEN}", text)


def _hide_in_url(match: re.Match[str]) -> str:
    database, rest = match[1] or "", match[2]
    # SQLAlchemy takes a database's password as it stands, slashes and question marks included.
    found = None if database else _AUTHORITY_END.search(rest)
    end = len(rest) if found is None else found.start()
    at = rest.rfind("@", 0, end)
    user = "" if at < 0 else f"{_HIDDEN}@"
    place, mark, _query = rest[at + 1 :].partition("?")
    return f"{database}://{user}{place}{mark}{_HIDDEN if mark else ''}"


def _hide_value(match: re.Match[str]) -> str:
    quote = match[2] or match[3] or ""
    return f"{match[1]}{quote}{_HIDDEN}{quote}"
