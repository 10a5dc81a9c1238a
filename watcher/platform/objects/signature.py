"""Signed requests to the services of S3's family: signature version 4."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Scope:
    """Who signs for which service of which region."""

    service: str
    region: str
    key_id: str
    secret: str


def sign(
    method: str, url: str, headers: Mapping[str, str], *, digest: str, scope: Scope, now: dt.datetime
) -> dict[str, str]:
    """The headers of a signed request: those given, `host`, `x-amz-date` and `authorization`.

    Source: AWS Signature Version 4, "Create a signed AWS API request".

    Args:
        method: of HTTP.
        url: with its path quoted, and its query quoted and sorted by name.
        headers: to be signed and sent; names in small letters.
        digest: SHA-256 of the body, in hex.
        scope: key and place.
        now: time of the request, in UTC.
    """
    parts = urlsplit(url)
    date = now.strftime("%Y%m%dT%H%M%SZ")
    signed = dict(sorted({**headers, "host": parts.netloc, "x-amz-date": date}.items()))
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = f"{method}\n{parts.path or '/'}\n{parts.query}\n{lines}\n{names}\n{digest}"
    place = f"{date[:8]}/{scope.region}/{scope.service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{date}\n{place}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{scope.secret}".encode()
    for part in place.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={scope.key_id}/{place}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": f"AWS4-HMAC-SHA256 {credential}"}
