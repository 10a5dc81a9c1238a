"""Every fault of a file has its own words; half-written files are told apart."""

from __future__ import annotations

import io
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from watcher.domain.errors import ImageError
from watcher.images import ImageLimits, read_image
from watcher.images.file_ends import ends_early

FORMATS = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("PNG", {}),
    ("WEBP", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("BMP", {}),
    ("PPM", {}),
    ("GIF", {}),
    ("JPEG2000", {}),
    ("AVIF", {}),
]


def build_picture(width: int = 120, height: int = 90, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-20, 20, smooth.shape), 0, 255).astype(np.uint8))


def encode(picture: Image.Image, name: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def catch(data, **options) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_image(data, **options)
    return caught.value


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_whole_file_is_read(name, options):
    data = encode(build_picture(), name, **options)
    image = read_image(data)
    assert (image.format, image.size_bytes, image.pixels.size, image.pixels.mode) == (
        name, len(data), (120, 90), "RGB",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "options"), FORMATS)
def test_file_cut_anywhere_is_called_truncated(name, options):
    data = encode(build_picture(), name, **options)
    for length in [
        0,
        1,
        5,
        11,
        15,
        20,
        40,
        100,
        len(data) // 4,
        len(data) // 2,
        len(data) * 9 // 10,
        len(data) - 30,
    ]:
        error = catch(data[:length])
        assert error.truncated, (length, error)
        assert "empty" in str(error) or "ends early" in str(error)


def test_jpeg_filled_up_with_zeros_is_called_truncated():
    data = encode(build_picture(640, 480))
    error = catch(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    assert error.truncated


def test_jpeg_with_bytes_behind_its_end_is_read():
    assert read_image(encode(build_picture()) + b"camera trailer").pixels.size == (120, 90)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_structure_of_a_tiff_tells_that_pixels_are_missing(options):
    data = encode(build_picture(), "TIFF", **options)
    assert not ends_early(data)
    assert ends_early(data[:-200])
    assert ends_early(data[: len(data) // 2])


def test_postscript_is_never_handed_to_its_interpreter(monkeypatch):
    called = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: called.append(1))
    assert "not a picture" in str(catch(encode(build_picture(), "EPS")))
    assert called == []


def test_empty_file_says_so():
    assert str(catch(b"")) == "the file is empty"


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am text and no picture\n" * 9,
        b"\x07" * 500,
    ],
)
def test_other_kind_of_file_is_not_a_picture(data):
    error = catch(data)
    assert not error.truncated
    assert "not a picture" in str(error)


def test_broken_file_names_its_format_and_is_not_called_truncated():
    data = bytearray(encode(build_picture(), "PNG"))
    data[60] ^= 0xFF
    error = catch(bytes(data))
    assert not error.truncated
    assert str(error).startswith("broken PNG file")


def test_bomb_is_refused_before_it_is_decoded():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    for side in (11_000, 60_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        error = catch(data)
        assert not error.truncated
        assert re.fullmatch(
            rf"too many pixels: .*{side * side}, at most 89478485 are allowed \(max_pixels\)", str(error)
        )


def test_limit_of_pixels_is_kept():
    data = encode(build_picture(100, 80))
    assert read_image(data, limits=ImageLimits(max_pixels=8000)).pixels.size == (100, 80)
    assert "100 x 80" in str(catch(data, limits=ImageLimits(max_pixels=7999)))


@pytest.mark.parametrize("as_path", [False, True])
def test_limit_of_bytes_is_kept(tmp_path, as_path):
    data = encode(build_picture())
    (tmp_path / "a.jpg").write_bytes(data)
    source = tmp_path / "a.jpg" if as_path else data
    assert read_image(source, limits=ImageLimits(max_bytes=len(data))).size_bytes == len(data)
    error = catch(source, limits=ImageLimits(max_bytes=len(data) - 1))
    assert f"too many bytes: {len(data)}" in str(error)


@pytest.mark.parametrize("limits", [{"max_pixels": 0}, {"max_pixels": 10**9}, {"max_bytes": 0}])
def test_senseless_limits_are_refused(limits):
    with pytest.raises(ValueError, match="must be"):
        ImageLimits(**limits)


def test_draft_reduces_a_jpeg_but_keeps_the_asked_size():
    image = read_image(encode(build_picture(1600, 1200)), draft_px=150)
    assert (image.pixels.size, image.is_reduced) == ((200, 150), True)
    assert not read_image(encode(build_picture(160, 120), "PNG"), draft_px=15).is_reduced


def test_sixteen_bit_grey_is_scaled_for_eyes_and_cut_off_for_the_metadata():
    levels = (np.arange(64 * 64, dtype=np.uint16) * 16).reshape(64, 64)
    image = read_image(encode(Image.fromarray(levels), "PNG"))
    assert np.array_equal(np.asarray(image.pixels)[..., 0], np.minimum(levels, 255))
    assert np.array_equal(np.asarray(image.view)[..., 0], levels >> 8)


def test_palette_with_transparency_is_read_without_a_warning():
    picture = build_picture().quantize(16)
    data = encode(picture, "PNG", transparency=bytes(range(16)))
    assert np.array_equal(np.asarray(read_image(data).pixels), np.asarray(picture.convert("RGB")))


def test_animation_gives_its_first_frame():
    first, second = build_picture(seed=1), build_picture(seed=2)
    data = encode(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert np.array_equal(np.asarray(read_image(data).pixels), np.asarray(first))


def test_many_threads_read_the_same():
    data = encode(build_picture(640, 480))
    expected = read_image(data).pixels.tobytes()
    with ThreadPoolExecutor(8) as pool:
        assert {image.pixels.tobytes() for image in pool.map(read_image, [data] * 32)} == {expected}


def test_memory_of_a_picture_is_used_again_for_the_next_one():
    buffer = io.BytesIO()
    Image.new("RGB", (800, 600), "red").save(buffer, "JPEG")
    read_image(buffer.getvalue())
    before = Image.core.get_stats()["reused_blocks"]
    for _ in range(5):
        read_image(buffer.getvalue())
    assert Image.core.get_stats()["reused_blocks"] >= before + 5
