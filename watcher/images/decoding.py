"""Bytes to pixels, with a clear word about every way in which that can fail."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from PIL import ExifTags, Image, UnidentifiedImageError

from watcher.domain.errors import ImageError
from watcher.images.depth import has_more_levels, reduce_levels
from watcher.images.file_ends import ends_early, find_format

_T = TypeVar("_T")

# Twice the number at which Pillow warns; above it Pillow itself refuses to open.
_PILLOW_MAX_PIXELS: Final = 178_956_970
# Formats of photographs. Left out above all: EPS, which Pillow hands to an external interpreter.
_FORMATS: Final = (
    "JPEG",
    "MPO",
    "PNG",
    "WEBP",
    "TIFF",
    "BMP",
    "DIB",
    "PPM",
    "GIF",
    "JPEG2000",
    "AVIF",
    "QOI",
)
# How Pillow's decoders say that bytes are missing.
_EARLY_END_WORDS: Final = ("truncat", "not enough image data", "eof", "expected to read", "expecting to read")
# Pillow gives the memory of each picture back, and getting it anew, page by page, takes longer than decoding a small
# JPEG. So it keeps some: at most 64 MB in blocks of 16. PILLOW_BLOCKS_MAX says otherwise.
_KEPT_BLOCKS: Final = 4
_allocator: Any = Image.core  # type: ignore[attr-defined] # where Pillow documents the settings of its blocks
if _allocator.get_blocks_max() == 0:
    _allocator.set_blocks_max(_KEPT_BLOCKS)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a picture may cost, and how its greys are read.

    Attributes:
        max_bytes: size of the file.
        max_pixels: width times height; at most 178,956,970. Decoding takes 4 bytes a pixel, 8 if the file is not
            stored as RGB. Above 89,478,485 Pillow issues a warning for each picture.
        grey_bits: bits that are used of whole numbers of more than 8; None: found for each frame, see `reduce_levels`.
    """

    max_bytes: int = 200_000_000
    max_pixels: int = 89_478_485
    grey_bits: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= _PILLOW_MAX_PIXELS:
            raise ValueError(f"max_pixels must be between 1 and {_PILLOW_MAX_PIXELS}, got {self.max_pixels}")
        if self.max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, got {self.max_bytes}")


DEFAULT_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A picture that was read in full without an error; of an animation the first frame.

    Attributes:
        pixels: RGB as Pillow converts it, which cuts greys of more than 8 bits off at 255; the base of the metadata.
        view: RGB for eyes, embedders and the alarm for dark frames: greys of more than 8 bits scaled to 8; else the
            same object as `pixels`. As stored, not turned; see `orientation`.
        size_bytes: size of the file.
        format: Pillow's name of the format, such as `JPEG`.
        orientation: EXIF orientation, 1 to 8; 1 where there is none.
        exif: EXIF as Pillow reads it; None where it cannot.
        is_reduced: decoded at a reduced size, which serves an embedder, but not the metadata.
    """

    pixels: Image.Image
    view: Image.Image
    size_bytes: int
    format: str
    orientation: int = 1
    exif: Image.Exif | None = None
    is_reduced: bool = False


def read_image(
    data: bytes | Path, *, limits: ImageLimits = DEFAULT_LIMITS, draft_px: int | None = None
) -> DecodedImage:
    """Decodes a picture in full, so that every fault of the file shows up here.

    Args:
        data: the bytes of the file, or where it lies.
        limits: checked before anything is decoded.
        draft_px: lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size, as long as both sides keep this many
            pixels; several times faster.

    Raises:
        ImageError: empty, not a picture, ends early, broken, too many pixels or bytes; `truncated` tells whether
            the rest may still be on its way.
        OSError: the file of a path cannot be read.
    """
    content = _read_bytes(data, limits) if isinstance(data, Path) else data
    if not content:
        raise ImageError("the file is empty", truncated=True)
    if len(content) > limits.max_bytes:
        raise _build_too_many_bytes(len(content), limits)
    source = _guard(content, limits, lambda: _open(content))
    width, height = source.size
    if width * height > limits.max_pixels:
        raise ImageError(
            f"too many pixels: {width} x {height} are {width * height}, at most {limits.max_pixels} are allowed "
            "(max_pixels)"
        )
    name = source.format or "unknown"
    if draft_px is not None and name in {"JPEG", "MPO"}:
        source.draft("RGB", (draft_px, draft_px))
    is_reduced = source.size != (width, height)
    _guard(content, limits, source.load)
    exif = _read_exif(source)
    pixels = _guard(content, limits, lambda: _convert_to_rgb(source))
    return DecodedImage(
        pixels=pixels,
        view=_guard(content, limits, lambda: _build_view(source, pixels, limits.grey_bits)),
        size_bytes=len(content),
        format=name,
        orientation=_find_orientation(exif),
        exif=exif,
        is_reduced=is_reduced,
    )


def count_pixels(content: bytes) -> int:
    """Width times height by the head of the file, in far less than a millisecond; 0 if it has no readable one."""
    try:
        width, height = _open(content).size
    except Exception:  # noqa: BLE001 - see _guard; reading it in full tells what is wrong
        return 0
    return width * height


def _read_bytes(path: Path, limits: ImageLimits) -> bytes:
    size = path.stat().st_size
    if size > limits.max_bytes:
        raise _build_too_many_bytes(size, limits)
    return path.read_bytes()


def _open(content: bytes) -> Image.Image:
    Image.init()
    return Image.open(io.BytesIO(content), formats=[name for name in _FORMATS if name in Image.OPEN])


def _guard(content: bytes, limits: ImageLimits, act: Callable[[], _T]) -> _T:
    """Runs a step of Pillow; whatever it raises becomes an ImageError.

    Decoders meet hostile bytes with any exception there is, from KeyError to ZeroDivisionError.
    """
    try:
        return act()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\d+", str(error))
        raise ImageError(
            f"too many pixels: {found[0] if found else 'more'}, at most {limits.max_pixels} are allowed (max_pixels)"
        ) from error
    except (MemoryError, ImageError):
        raise
    except Exception as error:
        kind = find_format(content)
        if kind is None:
            raise ImageError("not a picture of a known format") from error
        words = str(error).lower()
        if ends_early(content) or any(word in words for word in _EARLY_END_WORDS):
            raise _build_truncated(kind) from error
        reason = "its content is not recognised" if isinstance(error, UnidentifiedImageError) else str(error)
        raise ImageError(f"broken {kind} file: {(reason or type(error).__name__)[:200]}") from error


def _build_truncated(kind: str) -> ImageError:
    return ImageError(f"the {kind} file ends early; it may still be being written", truncated=True)


def _build_too_many_bytes(size: int, limits: ImageLimits) -> ImageError:
    return ImageError(f"too many bytes: {size}, at most {limits.max_bytes} are allowed (max_bytes)")


def _convert_to_rgb(source: Image.Image) -> Image.Image:
    if source.mode == "RGB":
        return source
    if source.mode in {"P", "PA"}:
        # Straight from a palette with transparency Pillow warns; by way of RGBA the colours are the same.
        source = source.convert("RGBA")
    return source.convert("RGB")


def _build_view(source: Image.Image, pixels: Image.Image, grey_bits: int | None) -> Image.Image:
    return reduce_levels(source, bits=grey_bits).convert("RGB") if has_more_levels(source) else pixels


def _read_exif(source: Image.Image) -> Image.Exif | None:
    try:
        return source.getexif()
    except Exception:  # noqa: BLE001 - broken EXIF in a sound picture, see _guard
        return None


def _find_orientation(exif: Image.Exif | None) -> int:
    value = None if exif is None else exif.get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
