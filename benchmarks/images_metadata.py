"""Metadata, EXIF and thumbnail of a 1600 x 1200 photograph, beside a straightforward float64 reference.

    python benchmarks/images_metadata.py [--repeats 20]

Prints CPU milliseconds an image (the best of the repeats, one thread) and one line of JSON at the end.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from watcher.images import build_thumbnail, compute_metadata, extract_exif, read_image


def build_photograph() -> bytes:
    """A bundled photograph, enlarged to 1600 x 1200, with sensor noise, as JPEG."""
    from skimage import data

    wide = Image.fromarray(data.coffee()).resize((1600, 1200), Image.Resampling.LANCZOS)
    noise = np.random.default_rng(0).normal(0, 3, (1200, 1600, 3))
    noisy = np.clip(np.asarray(wide) + noise, 0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "Benchmark"
    exif.get_ifd(0x8769)[0x829A] = 0.004
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=85, exif=exif)
    return buffer.getvalue()


def run_reference(content: bytes) -> list[float]:
    """The definitions written down in float64 numpy, as the original computes them."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    a = np.asarray(image, dtype=np.float64)
    x = a / 255
    values = [
        *x.mean(axis=(0, 1)),
        *x.std(axis=(0, 1)),
        *x.sum(axis=(0, 1)),
        *(x**2).sum(axis=(0, 1)),
        a.mean() / a.std(),
    ]
    kernel = ImageFilter.Kernel((3, 3), (-1, -1, -1, -1, 8, -1, -1, -1, -1), scale=1, offset=0)
    values.append(np.asarray(image.convert("L").filter(kernel)).std())
    dict(image.getexif())
    image.thumbnail((128, 128), Image.Resampling.LANCZOS, reducing_gap=None)
    image.save(io.BytesIO(), "WEBP", quality=90)
    return [float(value) for value in values]


def run_ours(content: bytes) -> list[float]:
    image = read_image(content)
    found = compute_metadata(image)
    extract_exif(image)
    build_thumbnail(image)
    assert found.mean
    assert found.std
    assert found.sum_of_values
    assert found.sum_of_squares
    assert found.snr is not None
    assert found.sharpness is not None
    return [
        *(*found.mean, *found.std, *found.sum_of_values, *found.sum_of_squares),
        *(found.snr, found.sharpness),
    ]


def measure_ms(act: Callable[[], object], repeats: int) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        act()
        best = min(best, time.process_time() - start)
    return best * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    repeats = parser.parse_args().repeats
    content = build_photograph()
    image = read_image(content)
    ours, reference = run_ours(content), run_reference(content)
    deviation = max(abs(a - b) / abs(b) for a, b in zip(ours, reference, strict=True))
    report = {
        "file_bytes": len(content),
        "ours_ms": measure_ms(lambda: run_ours(content), repeats),
        "reference_ms": measure_ms(lambda: run_reference(content), max(3, repeats // 4)),
        "read_ms": measure_ms(lambda: read_image(content), repeats),
        "metadata_ms": measure_ms(lambda: compute_metadata(image), repeats),
        "exif_ms": measure_ms(lambda: extract_exif(image), repeats),
        "thumbnail_ms": measure_ms(lambda: build_thumbnail(image), repeats),
        "largest_relative_deviation": deviation,
    }
    for name, value in report.items():
        print(f"{name:28} {value:.4g}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
