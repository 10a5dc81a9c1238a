"""Looks for tokens and signatures in what processes wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable

# A value that was hidden is `***`; a signature or token of any use is longer than seven characters.
_SIGNED = re.compile(
    r"(?:[?&]|%3F|%26)(?:s|sig|signature|token|X-Amz-Signature|X-Goog-Signature|X-Amz-Credential)=(?!\*)[^\s&\"'\\]{8,}",
    re.IGNORECASE,
)
_BEARER = re.compile(r"bearer\s+(?!\*)[A-Za-z0-9._~+/-]{8,}", re.IGNORECASE)


def find_leaks(text: str, *, secrets: Iterable[str] = ()) -> list[str]:
    """What should not be there, with a few characters around it.

    Args:
        text: a log, an answer, a page.
        secrets: tokens known to the test.
    """
    patterns = [_SIGNED, _BEARER, *(re.compile(re.escape(secret)) for secret in secrets if len(secret) >= 8)]
    return [
        text[max(0, match.start() - 40) : match.end() + 10]
        for pattern in patterns
        for match in pattern.finditer(text)
    ]
