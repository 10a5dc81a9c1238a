"""Pixels to metadata, EXIF and thumbnails.

The values are those that `lightly` sends for an uploaded folder, whose loader converts every picture to RGB with
Pillow. Safe for many threads at once; nothing here changes settings of Pillow.
"""

from __future__ import annotations

from watcher.images.decoding import DEFAULT_LIMITS, DecodedImage, ImageLimits, count_pixels, read_image
from watcher.images.exif import JsonValue, extract_exif
from watcher.images.metadata import compute_metadata, measure_levels
from watcher.images.thumbnails import build_thumbnail, turn_upright

__all__ = [
    "DEFAULT_LIMITS",
    "DecodedImage",
    "ImageLimits",
    "JsonValue",
    "build_thumbnail",
    "compute_metadata",
    "count_pixels",
    "extract_exif",
    "measure_levels",
    "read_image",
    "turn_upright",
]
