"""Text from outside, such as names of files, so that a terminal shows it instead of obeying it."""

from __future__ import annotations

import re

# All but the end of a line and the tabulator; the last ones turn the direction of what follows.
_CODES = [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
# Blanks of any width, joiners of emoji and marks of direction belong to names that systems give: macOS puts U+202F into
# those of screenshots.
_NEVER_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in _CODES
    if chr(code) not in {"\n", "\t"}
}


def is_text(name: str) -> bool:
    """Whether a name holds neither control characters nor what has no form in UTF-8."""
    return name.isprintable() or not _NEVER_IN_NAMES.search(name)


def make_visible(text: str) -> str:
    r"""The text with `\x1b` in the place of the control character of that number, and so on."""
    return text if text.isprintable() else text.translate(_SHOWN)
