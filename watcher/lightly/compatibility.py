"""Which client version the server asks for. Never checked on its own: only when asked to."""

from __future__ import annotations

import re

from watcher.domain.errors import ConfigError

PROTOCOL_VERSION = "1.5.26"
"""The version of `lightly` whose protocol this client speaks."""

_NUMBERS = re.compile(r"\s*v?(\d+)\.(\d+)(?:\.(\d+))?(.*)", re.DOTALL)


def parse_version(text: str) -> tuple[int, int, int, bool]:
    """A version as numbers to compare; a suffix such as `rc1` or `.dev0` ranks below the same without.

    Raises:
        ConfigError: it does not begin with two numbers joined by a dot.
    """
    found = _NUMBERS.fullmatch(text)
    if found is None:
        raise ConfigError(f"not a version: {text[:100]!r}")
    is_final = not re.match(r"[.-]?(a|b|rc|dev|alpha|beta|pre)", found[4].strip().lower())
    return int(found[1]), int(found[2]), int(found[3] or 0), is_final


def is_compatible(version: str, minimum: str) -> bool:
    """Whether a version is at least `minimum`."""
    return parse_version(version) >= parse_version(minimum)
