"""Greys of more than 8 bits and of floating point, as 8 bits for eyes and embedders."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffTags

from watcher.domain.errors import ImageError

# Depths of cameras. A file of 16 bits is never taken for less than 12: what is darker is a dark frame, whose noise
# must not become a picture.
_FULL_BITS: Final = 16
_SENSOR_BITS: Final = 12
_BITS_PER_SAMPLE: Final = next(tag for tag, info in TiffTags.TAGS_V2.items() if info.name == "BitsPerSample")


def has_more_levels(source: Image.Image) -> bool:
    """Whether the levels of a decoded picture are not those of 8 bits."""
    return source.mode.startswith(("I", "F"))


def reduce_levels(source: Image.Image, *, bits: int | None = None) -> Image.Image:
    """The picture with levels of 0 to 255, one scale for all frames of a depth, whatever a frame shows.

    Whole numbers are divided by 2 to the (depth - 8). No file says what depth its levels have, so the largest level of
    the frame does: 12 bits up to 4095, else 16; 16 also where all levels are multiples of 16, as where 12 bits stand in
    the upper end, and for PGM, which Pillow widens to that. Files of 32 bits may hold 8 bits too, and more than 16.
    Numbers of floating point are taken as 0 to 1, 0 to 255, or 0 to the next power of two, by the largest. What is
    below 0 or no number becomes 0.

    Args:
        source: the decoded picture.
        bits: at least 8; whole numbers are taken for that many, whatever the frame shows, and larger ones for white.
            PGM keeps its own largest level, and floating point its rule.

    Raises:
        ImageError: not one level is a finite number.
    """
    levels: NDArray[Any] = np.asarray(source)
    if levels.dtype.kind == "f":
        return Image.fromarray(_scale_floats(levels))
    shifted = levels >> (_find_depth(source, levels, bits) - 8)
    return Image.fromarray(np.clip(shifted, 0, 255, out=shifted).astype(np.uint8))


def _find_depth(source: Image.Image, levels: NDArray[Any], bits: int | None) -> int:
    if source.format == "PPM":
        return _FULL_BITS
    if bits is not None:
        return bits
    highest = max(0, int(levels.max()))
    if highest >> _FULL_BITS:
        return highest.bit_length()
    if highest < 256 and max(getattr(source, "tag_v2", {}).get(_BITS_PER_SAMPLE, (0,))) > _FULL_BITS:
        return 8
    in_upper_end = int(np.bitwise_or.reduce(levels, axis=None)) & 0xF == 0
    return _FULL_BITS if highest >> _SENSOR_BITS or in_upper_end else _SENSOR_BITS


def _scale_floats(levels: NDArray[Any]) -> NDArray[np.uint8]:
    is_number = np.isfinite(levels)
    if not is_number.any():
        raise ImageError("its levels are no numbers")
    levels = np.where(is_number, levels, 0)
    highest = float(levels.max())
    white = 1.0 if highest <= 1 else 255.0 if highest <= 255 else 2.0 ** math.ceil(math.log2(highest))
    levels *= 255 / white
    return np.clip(levels, 0, 255, out=levels).round(out=levels).astype(np.uint8)
