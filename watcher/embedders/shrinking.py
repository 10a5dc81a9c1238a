"""Pictures in the form in which they are handed to programs and services of the user's."""

from __future__ import annotations

import io

from PIL import Image

from watcher.images import ImageLimits, read_image, turn_upright

_QUALITY = 92


def shrink_picture(content: bytes, *, side_px: int, limits: ImageLimits) -> bytes:
    """A JPEG that fits a square of `side_px`, upright, never enlarged; with 0 the file as it is, found to be sound.

    Raises:
        ImageError: the file is no picture this program can read.
    """
    image = read_image(content, limits=limits, draft_px=side_px or None)
    if not side_px:
        return content
    view = turn_upright(image.view, image.orientation)
    scale = min(side_px / view.width, side_px / view.height)
    if scale < 1:
        size = (max(1, round(view.width * scale)), max(1, round(view.height * scale)))
        view = view.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    buffer = io.BytesIO()
    view.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
