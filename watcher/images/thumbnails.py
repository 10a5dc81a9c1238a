"""Small pictures for galleries."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from watcher.images.decoding import DecodedImage

THUMBNAIL_PX: Final = 128
THUMBNAIL_QUALITY: Final = 90

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def build_thumbnail(image: DecodedImage) -> bytes:
    """A WEBP of quality 90 that fits 128 x 128, aspect kept, never enlarged, turned upright as EXIF says.

    `lightly` leaves pictures lying as they are stored; a gallery is for eyes, so ours are turned, while `shape`
    in the metadata stays as stored.

    Large pictures are averaged by whole numbers down to at least three times the size before Lanczos, five times
    faster than Lanczos alone. About 6 ms for 2 megapixels, 2 of them for the encoder.
    """
    view = image.view
    scale = min(THUMBNAIL_PX / view.width, THUMBNAIL_PX / view.height)
    if scale < 1.0:
        size = (max(1, round(view.width * scale)), max(1, round(view.height * scale)))
        view = view.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    turn_upright(view, image.orientation).save(buffer, "WEBP", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def turn_upright(view: Image.Image, orientation: int) -> Image.Image:
    """The picture as it is meant to be seen; `orientation` as in EXIF, where 1 is upright."""
    turn = _TURNS.get(orientation)
    return view if turn is None else view.transpose(turn)
