"""The values of `watcher.images` beside those that the original's own library computes for the same files."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.photographs import write_photographs
from watcher.images import compute_metadata, read_image

PYTHON = Path(__file__).resolve().parents[2] / ".official-1.5.26" / "bin" / "python"
# The loader of a folder upload converts to RGB before the library sees the picture.
ORIGINAL = """
import json, sys
from PIL import Image
from lightly_utils.image_processing import Metadata
values = {}
for name in sys.argv[1:]:
    try:
        values[name] = Metadata(Image.open(name).convert("RGB")).to_dict()
    except Exception as error:
        values[name] = {"refused": type(error).__name__}
print(json.dumps(values, default=float))
"""
COMPARED = ("mean", "std", "sumOfValues", "sumOfSquares", "shape", "snr", "sharpness")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs in several formats, and one of each kind of pixel."""
    folder = tmp_path_factory.mktemp("pictures")
    found = write_photographs(folder / "photographs", 12, seed=11)
    with Image.open(found[0]) as opened:
        rgb = opened.convert("RGB")
    kinds = {
        "grey.png": rgb.convert("L"),
        "palette.png": rgb.convert("P"),
        "transparent.png": rgb.convert("RGBA"),
        "cmyk.jpg": rgb.convert("CMYK"),
        "one-bit.png": rgb.convert("1"),
        "flat.png": Image.new("RGB", (40, 30), (7, 7, 7)),
        "sixteen-bit.png": Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 200),
    }
    for name, image in kinds.items():
        image.save(folder / name)
    return [*found, *(folder / name for name in kinds)]


def test_metadata_equals_that_of_the_original_to_six_digits(pictures: list[Path]) -> None:
    done = subprocess.run(
        [str(PYTHON), "-c", ORIGINAL, *map(str, pictures)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    theirs = json.loads(done.stdout.splitlines()[-1])
    refused = [name for name, values in theirs.items() if "refused" in values]
    assert not refused
    for path in pictures:
        ours = compute_metadata(read_image(path))
        values = {
            "mean": ours.mean,
            "std": ours.std,
            "sumOfValues": ours.sum_of_values,
            "sumOfSquares": ours.sum_of_squares,
            "shape": ours.shape,
            "snr": ours.snr,
            "sharpness": ours.sharpness,
        }
        for name in COMPARED:
            wanted, got = np.ravel(theirs[str(path)][name]), np.ravel(values[name])
            assert len(wanted) == len(got), (path.name, name)
            for a, b in zip(wanted.tolist(), got.tolist(), strict=True):
                assert math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9), (path.name, name, a, b)
