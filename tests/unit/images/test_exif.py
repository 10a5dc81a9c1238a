"""EXIF becomes JSON, whatever a camera wrote into it."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from watcher.images import build_thumbnail, extract_exif, read_image


def read_with(exif: Image.Exif | bytes, name: str = "JPEG"):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), "red").save(buffer, name, exif=exif)
    return read_image(buffer.getvalue())


def test_tags_of_all_directories_are_found_by_name():
    exif = Image.Exif()
    exif[0x010F] = "Maker\0"
    exif[0x0110] = "Modèle".encode()
    exif[0x011A] = IFDRational(72, 1)
    exif.get_ifd(0x8769)[0x829A] = IFDRational(1, 250)
    exif.get_ifd(0x8769)[0x8827] = 400
    exif.get_ifd(0x8769)[0x9000] = b"0232"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (IFDRational(48, 1), IFDRational(8, 1), IFDRational(25, 2))
    found = extract_exif(read_with(exif))
    assert found == {
        "Make": "Maker",
        "Model": "Modèle",
        "XResolution": 72.0,
        "ExposureTime": 0.004,
        "ISOSpeedRatings": 400,
        "ExifVersion": "0232",
        "GPSInfo": {"GPSLatitudeRef": "N", "GPSLatitude": [48.0, 8.0, 12.5]},
    }


def test_unknown_tag_drops_nothing():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif[0xFDE9] = "mystery"
    assert extract_exif(read_with(exif)) == {"Make": "Maker", "Tag0xfde9": "mystery"}


def test_fraction_without_denominator_is_null():
    exif = Image.Exif()
    exif[0x011A] = IFDRational(1, 0)
    exif.get_ifd(0x8769)[0x829A] = IFDRational(0, 0)
    assert extract_exif(read_with(exif)) == {"XResolution": None, "ExposureTime": None}


def test_large_and_binary_values_are_left_out():
    exif = Image.Exif()
    exif[0x010E] = "x" * 5000
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769)[0x927C] = b"maker note"
    exif.get_ifd(0x8769)[0xA301] = b"\xff\xfe\x80"
    assert extract_exif(read_with(exif)) == {"Make": "Maker"}


@pytest.mark.parametrize(
    "comment",
    [b"ASCII\0\0\0good light", b"\0" * 8 + b"good light", b"UNICODE\0" + "good light".encode("utf-16")],
)
def test_user_comment_is_text(comment):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    assert extract_exif(read_with(exif)) == {"UserComment": "good light"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of the broken block
@pytest.mark.parametrize("block", [b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0rubbish", b"Exif\0\0"])
def test_broken_block_costs_only_itself(block):
    image = read_with(block)
    assert isinstance(extract_exif(image), dict)
    assert build_thumbnail(image)


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_of_any_format_is_json(name):
    exif = Image.Exif()
    exif[0x0110] = "Model"
    found = extract_exif(read_with(exif, name))
    assert found["Model"] == "Model"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert "StripOffsets" not in found


def test_picture_without_exif_has_an_empty_block():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "BMP")
    assert extract_exif(read_image(buffer.getvalue())) == {}
