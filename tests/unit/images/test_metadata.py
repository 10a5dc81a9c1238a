"""The values of an upload against their definition, in float64."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from watcher.images import compute_metadata, read_image


def compute_by_definition(data: bytes) -> dict:
    with Image.open(io.BytesIO(data)) as opened:
        source = opened.convert("RGBA" if opened.mode == "P" else "RGB").convert("RGB")
    a = np.asarray(source, dtype=np.float64)
    x = a / 255
    kernel = ImageFilter.Kernel((3, 3), (-1, -1, -1, -1, 8, -1, -1, -1, -1), scale=1, offset=0)
    edges = np.asarray(source.convert("L").filter(kernel), dtype=np.float64)
    return {
        "mean": x.mean(axis=(0, 1)).tolist(),
        "std": x.std(axis=(0, 1)).tolist(),
        "sum_of_values": x.sum(axis=(0, 1)).tolist(),
        "sum_of_squares": (x**2).sum(axis=(0, 1)).tolist(),
        "shape": list(a.shape),
        "snr": a.mean() / a.std() if a.std() else 0.0,
        "sharpness": edges.std(),
        "size_in_bytes": len(data),
    }


def build_noise(height: int, width: int, channels: int = 3, *, dtype: type = np.uint8) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    shape = (height, width, channels) if channels else (height, width)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


PICTURES = {
    "rgb": Image.fromarray(build_noise(50, 70)),
    "tall": Image.fromarray(build_noise(301, 5)),
    "rgba": Image.fromarray(build_noise(50, 70, 4), "RGBA"),
    "grey": Image.fromarray(build_noise(50, 70, 0)),
    "grey-16-bit": Image.fromarray(build_noise(50, 70, 0, dtype=np.uint16) >> 4),
    "palette": Image.fromarray(build_noise(50, 70)).quantize(40),
    "bilevel": Image.fromarray(build_noise(50, 70, 0)).convert("1"),
    "one-pixel": Image.fromarray(build_noise(1, 1)),
    "two-columns": Image.fromarray(build_noise(40, 2)),
    "two-rows": Image.fromarray(build_noise(2, 40)),
    "black": Image.new("RGB", (20, 20)),
}


def check(data: bytes) -> None:
    found = compute_metadata(read_image(data))
    for name, value in compute_by_definition(data).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert (found.is_corrupted, found.corruption) == (False, "")
    assert found.luminance is None
    assert found.uniform_row_ratio is None


@pytest.mark.parametrize("name", PICTURES)
def test_metadata_follows_its_definition(name):
    buffer = io.BytesIO()
    PICTURES[name].save(buffer, "PNG")
    check(buffer.getvalue())


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_metadata_of_a_jpeg_follows_its_definition_as_stored(mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(build_noise(48, 80)).resize((200, 120)).convert(mode).save(buffer, "JPEG", exif=exif)
    check(buffer.getvalue())


def test_metadata_of_a_reduced_picture_is_refused():
    buffer = io.BytesIO()
    Image.fromarray(build_noise(400, 400)).save(buffer, "JPEG")
    with pytest.raises(ValueError, match="full size"):
        compute_metadata(read_image(buffer.getvalue(), draft_px=100))
