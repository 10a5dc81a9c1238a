"""URLs that work without a token: a signature covers method, object and expiry.

So a URL is good for one object, one direction and a limited time.
"""

from __future__ import annotations

import re
import secrets as random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from watcher.platform.faults import forbidden
from watcher.platform.secrets import Keys

if TYPE_CHECKING:
    from watcher.platform.calls import Call
    from watcher.platform.context import Platform

# Names, joined by NUL, that a URL can hold as they are.
_SAFE = re.compile(r"[A-Za-z0-9_./~\0-]*")


def _message(method: str, kind: str, subject: str, expiry: str) -> bytes:
    return f"{method}\n{kind}\n{expiry}\n{subject}".encode()


def _sign(keys: Keys, method: str, kind: str, subject: str, expiry: int) -> str:
    return f"e={expiry}&s={keys.sign_url(_message(method, kind, subject, str(expiry)))}"


def sign_read(call: Call, key: str) -> str:
    """A URL to read an upload."""
    expiry = int(call.now_s) + call.platform.config.read_url_ttl_s
    return f"{call.url_base}/blobs/{key}?{_sign(call.platform.keys, 'GET', 'blobs', key, expiry)}"


def sign_write(call: Call, key: str) -> str:
    """A URL to upload."""
    expiry = int(call.now_s) + call.platform.config.write_url_ttl_s
    return f"{call.url_base}/blobs/{key}?{_sign(call.platform.keys, 'PUT', 'blobs', key, expiry)}"


def sign_files(call: Call, dataset_id: str, names: Sequence[str]) -> list[str]:
    """URLs to read objects of a folder; kept lean, since listings call it for every row."""
    expiry = int(call.now_s) + call.platform.config.read_url_ttl_s
    prefix = f"{call.url_base}/files/{dataset_id}/"
    head = f"GET\nfiles\n{expiry}\n{dataset_id}/".encode()
    sign = call.platform.keys.build_signer(head)
    joined = "\0".join(names)
    paths: Sequence[str] = names if _SAFE.fullmatch(joined) else [quote(name) for name in names]
    signatures = map(sign, joined.encode().split(b"\0"))
    end = f"?e={expiry}&s="
    return [f"{prefix}{path}{end}{signature}" for path, signature in zip(paths, signatures, strict=False)]


def check_signature(
    query: Mapping[str, str], platform: Platform, method: str, kind: str, subject: str
) -> None:
    """Refuses what is not signed or no longer good.

    Raises:
        Fault: 403.
    """
    expiry, signature = query.get("e", ""), query.get("s", "")
    try:
        expected = platform.keys.sign_url(_message(method, kind, subject, expiry))
        genuine = random.compare_digest(expected.encode(), signature.encode())
    except UnicodeEncodeError:
        genuine = False
    if not genuine:
        raise forbidden("the signature of this URL does not fit: ask for a fresh one")
    if platform.clock.now_s() > int(expiry):
        raise forbidden("this URL has expired: ask for a fresh one")
