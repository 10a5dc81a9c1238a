"""URLs that work without a token: a signature covers method, object and expiry.

So a URL is good for one object, one direction and a limited time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from watcher.lightly.wire.datasources import RawSample
from watcher.platform.faults import forbidden
from watcher.platform.secrets import Keys

if TYPE_CHECKING:
    from watcher.platform.calls import Call
    from watcher.platform.context import Platform

_encode = msgspec.json.Encoder().encode
# Names, joined by NUL, that a URL and a JSON text can hold as they are.
_SAFE = re.compile(r"[A-Za-z0-9_./~\0-]*")


def _message(method: str, kind: str, subject: str, expiry: str) -> bytes:
    return f"{method}\n{kind}\n{expiry}\n{subject}".encode()


def _sign(keys: Keys, method: str, kind: str, subject: str, expiry: int) -> str:
    return f"e={expiry}&s={keys.sign_url(_message(method, kind, subject, str(expiry)))}"


def sign_read(call: Call, key: str, *, ttl_s: int | None = None) -> str:
    """A URL to read an upload, for as long as is configured, or for `ttl_s`."""
    expiry = int(call.now_s) + (call.platform.config.read_url_ttl_s if ttl_s is None else ttl_s)
    return f"{call.url_base}/blobs/{key}?{_sign(call.platform.keys, 'GET', 'blobs', key, expiry)}"


def sign_write(call: Call, key: str) -> str:
    """A URL to upload."""
    expiry = int(call.now_s) + call.platform.config.write_url_ttl_s
    return f"{call.url_base}/blobs/{key}?{_sign(call.platform.keys, 'PUT', 'blobs', key, expiry)}"


def sign_files(call: Call, dataset_id: str, names: Sequence[str]) -> list[str]:
    """URLs to read objects of a folder."""
    expiry, signatures = _sign_names(call, dataset_id, "\0".join(names)) if names else (0, [])
    prefix, end = _build_frame(call, dataset_id, expiry)
    return [
        f"{prefix}{quote(name)}{end}{signature}" for name, signature in zip(names, signatures, strict=True)
    ]


def encode_files(call: Call, dataset_id: str, names: Sequence[str]) -> bytes:
    """The rows of a page as JSON, `[{"fileName": ..., "readUrl": ...}, ...]`, each with its signed URL.

    Listings do this for every row, so nothing is made for a row but its signature and its text.
    """
    joined = "\0".join(names)
    if not names or not _SAFE.fullmatch(joined):
        return encode_rows(names, sign_files(call, dataset_id, names))
    expiry, signatures = _sign_names(call, dataset_id, joined)
    prefix, end = _build_frame(call, dataset_id, expiry)
    middle = '","readUrl":' + _encode(prefix).decode()[:-1]
    rows = '"},{"fileName":"'.join(
        [f"{name}{middle}{name}{end}{signature}" for name, signature in zip(names, signatures, strict=True)]
    )
    return f'[{{"fileName":"{rows}"}}]'.encode()


def encode_rows(names: Sequence[str], urls: Sequence[str]) -> bytes:
    """The rows of a page as JSON, whatever the names and URLs hold."""
    return _encode([RawSample(file_name=name, read_url=url) for name, url in zip(names, urls, strict=True)])


def _sign_names(call: Call, dataset_id: str, joined: str) -> tuple[int, list[str]]:
    """The expiry, and the signature of each name; no name holds the NUL between them."""
    expiry = int(call.now_s) + call.platform.config.read_url_ttl_s
    head = _message("GET", "files", f"{dataset_id}/", str(expiry))
    return expiry, call.platform.keys.sign_urls(head, joined.encode().split(b"\0"))


def _build_frame(call: Call, dataset_id: str, expiry: int) -> tuple[str, str]:
    return f"{call.url_base}/files/{dataset_id}/", f"?e={expiry}&s="


def check_signature(
    query: Mapping[str, str], platform: Platform, method: str, kind: str, subject: str
) -> None:
    """Refuses what is not signed or no longer good.

    Raises:
        Fault: 403.
    """
    expiry, signature = query.get("e", ""), query.get("s", "")
    try:
        genuine = platform.keys.is_url_signature(_message(method, kind, subject, expiry), signature)
    except UnicodeEncodeError:
        genuine = False
    if not genuine:
        raise forbidden("the signature of this URL does not fit: ask for a fresh one")
    if platform.clock.now_s() > int(expiry):
        raise forbidden("this URL has expired: ask for a fresh one")
