"""Takes tokens and signed queries out of text.

A signed URL is a secret in its query string, whoever signed it, so the whole query of every URL goes, and so do
the values of parameters that carry tokens wherever they stand.
"""

from __future__ import annotations

import re

_URL_QUERY = re.compile(
    r"((?:https?|s3|gs|azure|postgres(?:ql)?(?:\+\w+)?)://[^\s\"'<>?]*)\?[^\s\"'<>]*", re.IGNORECASE
)
_URL_USER = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@\"'<>]+@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"((?:^|[?&\s\"'(,{])(?:token|publictoken|access_token|signature|sig|x-amz-signature|x-amz-credential|"
    r"x-amz-security-token|x-goog-signature|password|secret)[\"']?\s*[=:]\s*[\"']?)[^\s&\"'<>),}]+",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(bearer\s+)[a-z0-9._~+/=-]+", re.IGNORECASE)

_HIDDEN = "***"


def redact(text: str) -> str:
    """The text without query strings of URLs, user parts of URLs, bearer tokens and token parameters."""
    text = _URL_QUERY.sub(rf"\1?{_HIDDEN}", text)
    text = _URL_USER.sub(rf"\1{_HIDDEN}@", text)
    text = _PARAMETER.sub(rf"\1{_HIDDEN}", text)
    return _BEARER.sub(rf"\1{_HIDDEN}", text)
