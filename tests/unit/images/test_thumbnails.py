"""Thumbnails fit, are never enlarged, and stand upright."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from watcher.images import build_thumbnail, read_image


def build(picture: Image.Image, *, orientation: int = 1, name: str = "PNG") -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture.save(buffer, name, exif=exif)
    opened = Image.open(io.BytesIO(build_thumbnail(read_image(buffer.getvalue()))))
    assert opened.format == "WEBP"
    return opened.convert("RGB")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1600, 1200), (128, 96)),
        ((300, 900), (43, 128)),
        ((128, 128), (128, 128)),
        ((129, 100), (128, 99)),
        ((40, 30), (40, 30)),
        ((1, 1), (1, 1)),
        ((5000, 2), (128, 1)),
    ],
)
def test_thumbnail_fits_and_is_never_enlarged(size, expected):
    assert build(Image.new("RGB", size, "teal")).size == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_thumbnail_stands_upright(orientation):
    upright = np.zeros((60, 100, 3), dtype=np.uint8)
    upright[:30, :50] = (250, 0, 0)
    upright[:30, 50:] = (0, 250, 0)
    upright[30:, :50] = (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    found = np.asarray(build(Image.fromarray(np.ascontiguousarray(stored)), orientation=orientation)).astype(
        int
    )
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < 8


def test_thumbnail_is_close_to_plain_lanczos():
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((1600, 1200), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = np.clip(smooth + rng.integers(-60, 60, smooth.shape), 0, 255)
    picture = Image.fromarray(noisy.astype(np.uint8))
    plain = np.asarray(build(picture.resize((128, 96), Image.Resampling.LANCZOS))).astype(int)
    found = np.asarray(build(picture)).astype(int)
    assert np.abs(found - plain).mean() < 3
    nearest = np.asarray(build(picture.resize((128, 96), Image.Resampling.NEAREST))).astype(int)
    assert np.abs(nearest - plain).mean() > 9


def test_thumbnail_of_sixteen_bit_grey_is_not_white():
    levels = np.full((200, 200), 30_000, dtype=np.uint16)
    assert np.abs(np.asarray(build(Image.fromarray(levels))).astype(int) - 117).max() < 4
