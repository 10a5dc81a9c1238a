"""Versions that the server asks of its clients. These calls carry no token."""

from __future__ import annotations

import re

from watcher.domain.errors import ProtocolError
from watcher.lightly.transport import Answer, Transport

_VERSION = re.compile(r'\s*"?(\d+\.\d+\.\d+)"?\s*')


def fetch_minimum_version(transport: Transport) -> str:
    """The lowest client version that the server works with, e.g. `1.2.0`.

    Raises:
        ProtocolError: the answer is not three numbers joined by dots.
    """
    path = "/v1/versions/pip/minimum"
    return _read_version(transport.call("GET", path, authenticated=False), path)


def fetch_latest_version(transport: Transport, *, current_version: str) -> str:
    """The newest client version that the server knows.

    Raises:
        ProtocolError: the answer is not three numbers joined by dots.
    """
    path = "/v1/versions/pip/latest"
    query = {"currentVersion": current_version}
    return _read_version(transport.call("GET", path, query=query, authenticated=False), path)


def _read_version(answer: Answer, path: str) -> str:
    # A JSON string, but a bare text is understood as well.
    found = _VERSION.fullmatch(answer.body[:200].decode("ascii", "replace"))
    if found is None:
        raise ProtocolError(f"GET {path}: the answer is no version of three numbers")
    return found[1]
