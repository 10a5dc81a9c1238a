"""Greys of more than 8 bits: what eyes, embedders and the alarm for dark frames get of them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from watcher.domain.errors import ImageError
from watcher.images import (
    DecodedImage,
    ImageLimits,
    build_thumbnail,
    compute_metadata,
    measure_levels,
    read_image,
)

# The limit of the alarm for dark frames.
DARK = 0.03
RAMP = np.linspace(0, 1, 64 * 64).reshape(64, 64)


def save(levels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, kind)
    return buffer.getvalue()


def measure(image: DecodedImage) -> tuple[float, float]:
    return measure_levels(image, compute_metadata(image))


def build_noise(std: float, *, black: int = 0) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, std, (64, 64))
    return np.clip(black + np.abs(noise), 0, 65535)


def build_pgm(levels: np.ndarray, *, highest: int) -> bytes:
    height, width = levels.shape
    return b"P5 %d %d %d\n" % (width, height, highest) + levels.astype(">u2").tobytes()


@pytest.mark.parametrize(
    ("levels", "kind"),
    [
        ((RAMP * 4095).astype(np.uint16), "PNG"),
        ((RAMP * 4095).astype(np.uint16) << 4, "PNG"),
        ((RAMP * 65535).astype(np.uint16), "PNG"),
        ((RAMP * 65535).astype(np.uint16), "TIFF"),
        ((RAMP * 4095).astype(np.uint16), "TIFF"),
        ((RAMP * 255).astype(np.int32), "TIFF"),
        ((RAMP * 4095).astype(np.int32), "TIFF"),
        ((RAMP * (2**20 - 1)).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 4096).astype(np.float32), "TIFF"),
    ],
)
def test_ramp_of_any_depth_is_seen_as_a_ramp(levels, kind):
    image = read_image(save(levels, kind))
    seen = np.asarray(image.view)[..., 0] / 255
    assert np.abs(seen - RAMP).max() < 0.01
    brightness, contrast = measure(image)
    assert brightness == pytest.approx(0.5, abs=0.01)
    assert contrast == pytest.approx(RAMP.std(), abs=0.01)
    thumbnail = np.asarray(Image.open(io.BytesIO(build_thumbnail(image))).convert("L"))
    assert thumbnail.std() > 50


@pytest.mark.parametrize(
    "content",
    [
        save(np.zeros((64, 64), dtype=np.uint16)),
        save(build_noise(15).astype(np.uint16)),
        save(build_noise(8, black=64).astype(np.uint16)),
        save(build_noise(8, black=64).astype(np.uint16) << 4),
        save(build_noise(60, black=800).astype(np.uint16)),
        save(build_noise(300, black=4096).astype(np.uint16)),
        save(np.full((64, 64), -300, dtype=np.int32), "TIFF"),
        save((build_noise(0.002)).astype(np.float32), "TIFF"),
        build_pgm(build_noise(8, black=64), highest=4095),
    ],
    ids=[
        "black",
        "noise",
        "12 bits",
        "12 bits in the upper end",
        "zero of 800",
        "zero of 4096",
        "negative",
        "float",
        "PGM",
    ],
)
def test_dark_frame_stays_dark_whatever_its_noise(content):
    image = read_image(content)
    _, contrast = measure(image)
    assert contrast < DARK
    assert np.asarray(image.view).max() < 100


@pytest.mark.parametrize("light", [1.0, 0.4, 0.02])
@pytest.mark.parametrize(
    ("bits", "stored"), [(8, np.uint16), (10, np.uint16), (12, np.uint16), (16, np.int32)]
)
def test_depth_that_is_set_counts_for_every_frame(bits, stored, light):
    kind = "PNG" if stored is np.uint16 else "TIFF"
    content = save((RAMP * light * (2**bits - 1)).astype(stored), kind)
    brightness, contrast = measure(read_image(content, limits=ImageLimits(grey_bits=bits)))
    assert brightness == pytest.approx(light / 2, abs=0.004)
    assert contrast == pytest.approx(light * RAMP.std(), abs=0.004)


def test_levels_beyond_the_depth_that_is_set_are_white_and_other_files_are_read_as_ever():
    limits = ImageLimits(grey_bits=10)
    view = np.asarray(read_image(save((RAMP * 4095).astype(np.uint16)), limits=limits).view)[..., 0] / 255
    assert np.abs(view - np.minimum(1, 4 * RAMP)).max() < 0.01
    for content in (
        build_pgm((RAMP * 4095).astype(np.uint16), highest=4095),
        save(RAMP.astype(np.float32), "TIFF"),
        save((RAMP * 255).astype(np.uint8)),
    ):
        assert np.abs(np.asarray(read_image(content, limits=limits).view)[..., 0] / 255 - RAMP).max() < 0.01


def test_frames_of_one_camera_are_told_apart_by_their_light():
    by_light = [
        measure(read_image(save((RAMP * 4095 * light).astype(np.uint16))))[0] for light in (0.3, 0.6, 0.9)
    ]
    assert by_light == [pytest.approx(light / 2, abs=0.01) for light in (0.3, 0.6, 0.9)]


def test_metadata_stay_those_of_the_original():
    """It cuts off at 255; see docs/differences.md."""
    image = read_image(save((RAMP * 4095).astype(np.uint16)))
    values = compute_metadata(image)
    assert values.mean == [pytest.approx(np.minimum(RAMP * 4095 // 1, 255).mean() / 255)] * 3


def test_picture_of_eight_bits_is_measured_as_its_metadata():
    rng = np.random.default_rng(2)
    image = read_image(save(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)))
    values = compute_metadata(image)
    brightness, contrast = measure(image)
    assert brightness == pytest.approx(np.mean(values.mean))
    assert contrast == pytest.approx(np.mean(values.std))
    assert image.view is image.pixels


def test_levels_that_are_no_numbers_count_as_black_unless_all_are():
    levels = RAMP.astype(np.float32)
    levels[:8], levels[8], levels[9] = np.nan, np.inf, -3
    seen = np.asarray(read_image(save(levels, "TIFF")).view)[..., 0]
    assert seen[:10].max() == 0
    assert seen[-1, -1] == 255
    with pytest.raises(ImageError, match="its levels are no numbers"):
        read_image(save(np.full((8, 8), np.nan, dtype=np.float32), "TIFF"))
