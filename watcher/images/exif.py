"""EXIF as plain JSON values."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from watcher.images.decoding import DecodedImage

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"

MAX_TEXT_CHARS: Final = 2048
MAX_ENTRIES: Final = 64
MAX_TAGS: Final = 256

# Offsets, tables and blocks of other formats: of no meaning outside of the file they were read from.
_LEFT_OUT: Final = frozenset(
    {
        *(273, 279, 288, 289, 324, 325, 330, 347, 513, 514, 519, 520, 521),  # where pixels and tables lie
        *(700, 33723, 34377, 34675, 50341),  # XMP, IPTC, Photoshop, colour profile, print matching
        *(34665, 34853, 40965),  # pointers to the directories that are read in their place
        *(37500, 50740),  # the maker's own
    }
)
_USER_COMMENT: Final = 37510
_COMMENT_CODES: Final = {
    b"ASCII\0\0\0": "ascii",
    b"UNICODE\0": "utf-16",
    b"JIS\0\0\0\0\0": None,
    b"\0" * 8: "utf-8",
}


class _Unfit(Exception):  # noqa: N818 - not an error: the value has no place in the block
    """A value that is left out."""


def extract_exif(image: DecodedImage) -> dict[str, JsonValue]:
    """`{tag name: value}` of the picture's EXIF; empty where there is none. Never raises.

    The tags of the first directory and of the Exif directory stand side by side, those of GPS in a dictionary
    `GPSInfo`. A tag without a name is called by its number, such as `Tag0x9c9c`. Fractions become floats, and
    null where they are no number; bytes become text where they are UTF-8. Left out are values longer than 2048
    characters or 64 entries, the maker's note, and pointers; at most 256 tags are kept.
    """
    if image.exif is None:
        return {}
    tags: dict[str, JsonValue] = {}
    for directory in (None, ExifTags.IFD.Exif):
        _add_tags(tags, _read_directory(image.exif, directory), ExifTags.TAGS)
    gps: dict[str, JsonValue] = {}
    _add_tags(gps, _read_directory(image.exif, ExifTags.IFD.GPSInfo), ExifTags.GPSTAGS, left_out=frozenset())
    if gps:
        tags["GPSInfo"] = gps
    return tags


def _read_directory(exif: Image.Exif, directory: int | None) -> Iterable[tuple[int, Any]]:
    try:
        return list(exif.items() if directory is None else exif.get_ifd(directory).items())
    except Exception:  # noqa: BLE001 - Pillow meets a broken directory with any exception there is
        return []


def _add_tags(
    tags: dict[str, JsonValue],
    found: Iterable[tuple[int, Any]],
    names: Mapping[int, str],
    left_out: frozenset[int] = _LEFT_OUT,
) -> None:
    for tag, value in found:
        if tag in left_out or len(tags) >= MAX_TAGS:
            continue
        try:
            tags[names.get(tag, f"Tag0x{tag:04x}")] = _to_json(
                _strip_comment_code(value) if tag == _USER_COMMENT else value
            )
        except _Unfit:
            continue


def _strip_comment_code(value: Any) -> Any:
    """A user comment begins with eight bytes that name its encoding."""
    if not isinstance(value, bytes) or value[:8] not in _COMMENT_CODES:
        return value
    encoding = _COMMENT_CODES[value[:8]]
    if encoding is None:
        raise _Unfit
    return value[8:].decode(encoding, errors="replace")


def _to_json(value: Any) -> JsonValue:
    if value is None or isinstance(value, (bool, int)):
        # Beyond 64 bits JSON readers and databases lose digits or refuse.
        if isinstance(value, int) and abs(value) >= 1 << 63:
            raise _Unfit
        return value
    if isinstance(value, (float, IFDRational)):
        return _to_number(value)
    if isinstance(value, bytes):
        if len(value) > 4 * MAX_TEXT_CHARS:
            raise _Unfit
        try:
            return _to_text(value.decode("utf-8"))
        except UnicodeDecodeError:
            raise _Unfit from None
    if isinstance(value, str):
        return _to_text(value)
    if isinstance(value, Mapping):
        if len(value) > MAX_ENTRIES:
            raise _Unfit
        return {str(key)[:64]: _to_json(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        if len(value) > MAX_ENTRIES:
            raise _Unfit
        return [_to_json(entry) for entry in value]
    raise _Unfit


def _to_number(value: float | IFDRational) -> float | None:
    try:
        number = float(value)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _to_text(value: str) -> str:
    if not value.isascii():
        # Pillow reads text as Latin-1; most cameras that leave ASCII write UTF-8.
        with contextlib.suppress(UnicodeError):
            value = value.encode("latin-1").decode("utf-8")
    # Postgres refuses NUL in JSON, and half of a surrogate pair is no UTF-8.
    text = value.replace("\0", "").encode("utf-8", errors="replace").decode("utf-8").strip()
    if len(text) > MAX_TEXT_CHARS:
        raise _Unfit
    return text
