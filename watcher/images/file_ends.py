"""Which format a file claims to be, and whether its own structure says that bytes are missing at the end.

Decoders tell "broken" and "not all there" apart badly. The difference matters: a file that is still being written
deserves another look, a broken one does not.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

_MAGICS: Final = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("GIF", 0, b"GIF87a"),
    ("GIF", 0, b"GIF89a"),
    ("TIFF", 0, b"II*\x00"),
    ("TIFF", 0, b"MM\x00*"),
    ("QOI", 0, b"qoif"),
    ("JPEG2000", 0, b"\x00\x00\x00\x0cjP  \r\n\x87\n"),
    ("JPEG2000", 0, b"\xff\x4f\xff\x51"),
    ("AVIF", 4, b"ftypavif"),
    ("AVIF", 4, b"ftypavis"),
)


def find_format(content: bytes) -> str | None:
    """Name of the format that the first bytes claim; None for none of ours.

    A file shorter than the mark of a format counts as that format if it is a beginning of it.
    """
    for name, offset, magic in _MAGICS:
        start = content[offset : offset + len(magic)]
        if start and magic.startswith(start):
            return name
    if b"RIFF".startswith(content[:4]) and b"WEBP".startswith(content[8:12]):
        return "WEBP"
    if b"BM".startswith(content[:2]) and (len(content) < 18 or content[14:18] in _BMP_HEADER_SIZES):
        return "BMP"
    if content[:1] == b"P" and (content[1:2] + b"6").isdigit() and (content[2:3] + b" ").isspace():
        return "PPM"
    return None


_BMP_HEADER_SIZES: Final = tuple(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def ends_early(content: bytes) -> bool:
    """Whether the structure of the file reaches beyond its end. False where the format does not tell.

    For files that a decoder has refused in words that leave it open. Never raises.
    """
    if len(content) < 16:
        return find_format(content) is not None
    check = _CHECKS.get(find_format(content) or "")
    try:
        return check is not None and check(content)
    except (struct.error, IndexError):
        return True


def _jpeg_ends_early(content: bytes) -> bool:
    return content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")


def _png_ends_early(content: bytes) -> bool:
    return content.rfind(b"IEND") < 0


def _gif_ends_early(content: bytes) -> bool:
    return not content.rstrip(b"\x00").endswith(b";")


def _webp_ends_early(content: bytes) -> bool:
    return _read("<I", content, 4) + 8 > len(content)


def _boxes_end_early(content: bytes) -> bool:
    if content[:4] == b"\xff\x4f\xff\x51":
        return not content.rstrip(b"\x00").endswith(b"\xff\xd9")
    at = 0
    while at < len(content):
        size = _read(">I", content, at)
        if size == 0:  # up to the end of the file
            return False
        if size == 1:
            size = _read(">Q", content, at + 8)
        if size < 8:
            return False
        at += size
    return at > len(content)


def _tiff_ends_early(content: bytes) -> bool:
    order = "<" if content[:2] == b"II" else ">"
    at = _read(order + "I", content, 4)
    starts: list[int] = []
    sizes: list[int] = []
    for entry in range(at + 2, at + 2 + 12 * _read(order + "H", content, at), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", content, entry)
        if tag not in {273, 279, 324, 325} or kind not in {3, 4}:
            continue
        letter, width = ("H", 2) if kind == 3 else ("I", 4)
        place = entry + 8 if count * width <= 4 else _read(order + "I", content, entry + 8)
        if place + count * width > len(content):
            return True
        values = struct.unpack_from(f"{order}{count}{letter}", content, place)
        (starts if tag in {273, 324} else sizes).extend(values)
    return any(start + size > len(content) for start, size in zip(starts, sizes, strict=False))


def _read(layout: str, content: bytes, at: int) -> int:
    return int(struct.unpack_from(layout, content, at)[0])


_CHECKS: Final[dict[str, Callable[[bytes], bool]]] = {
    "JPEG": _jpeg_ends_early,
    "PNG": _png_ends_early,
    "GIF": _gif_ends_early,
    "WEBP": _webp_ends_early,
    "AVIF": _boxes_end_early,
    "JPEG2000": _boxes_end_early,
    "TIFF": _tiff_ends_early,
}
