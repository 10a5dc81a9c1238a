"""Real photographs for tests: crops, flips, exposures and noise of those bundled with scikit-image and scikit-learn."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import skimage.data
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image

_NAMES = (
    *(
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
    ),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
# Pictures of one texture: their crops are hard to tell apart even for people.
_EVEN = frozenset({"brick.png", "grass.png", "gravel.png", "page.png", "text.png", "moon.png"})
_LONGEST_PX = 800


@functools.cache
def load_photographs() -> dict[str, Image.Image]:
    """The bundled photographs in RGB, at most 800 pixels long, by file name. Cached; do not change them."""
    folder = Path(skimage.data.__file__).parent
    found = {name: Image.open(folder / name).convert("RGB") for name in _NAMES}
    for name, pixels in zip(
        ("china.jpg", "flower.jpg"), sklearn.datasets.load_sample_images().images, strict=True
    ):
        found[name] = Image.fromarray(pixels)
    for photograph in found.values():
        photograph.thumbnail((_LONGEST_PX, _LONGEST_PX), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return found


def build_scenes(n: int, *, seed: int) -> list[Image.Image]:
    """`n` views of the photographs, no two of one region at one scale, each up to 400 pixels long.

    There are 84 of them as they are; beyond that mirrored and turned ones follow, 672 in all.
    """
    windows = []
    for name in load_photographs():
        windows.append((name, (0.0, 0.0, 1.0)))
        if name not in _EVEN:
            windows += [(name, (x, y, 0.5)) for x in (0.0, 0.5) for y in (0.0, 0.5)]
            windows.append((name, (0.25, 0.25, 0.5)))
    rng = np.random.default_rng(seed)
    scenes: list[Image.Image] = []
    turns = (None, *(Image.Transpose(turn) for turn in range(7)))
    for turn in turns:
        for index in rng.permutation(len(windows)):
            if len(scenes) == n:
                return scenes
            name, (x, y, side) = windows[index]
            photograph = load_photographs()[name]
            width, height = photograph.size
            box = (int(x * width), int(y * height), int((x + side) * width), int((y + side) * height))
            scene = photograph.crop(box)
            scene.thumbnail((400, 400), Image.Resampling.BILINEAR, reducing_gap=2.0)
            scenes.append(scene if turn is None else scene.transpose(turn))
    raise ValueError(f"there are only {len(scenes)} scenes")


def build_near_duplicate(scene: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The scene as the same camera might see it a moment later.

    One to three of: a crop that keeps 90 to 100 % of each side, a shift by up to 3 % each way, exposure by 2/3 to 3/2,
    sensor noise of up to 12 levels, strong JPEG compression.
    """
    changes = rng.choice(5, size=rng.integers(1, 4), replace=False)
    width, height = scene.size
    if 0 in changes:
        keep = rng.uniform(0.9, 1.0, 2)
        left, top = rng.uniform(0, 1 - keep) * (width, height)
        box = (left, top, left + keep[0] * width, top + keep[1] * height)
        scene = scene.resize(scene.size, Image.Resampling.BILINEAR, box=tuple(float(edge) for edge in box))
    if 1 in changes:
        left, top = rng.uniform(0, 0.06, 2) * (width, height)
        box = (left, top, left + 0.94 * width, top + 0.94 * height)
        scene = scene.resize(scene.size, Image.Resampling.BILINEAR, box=tuple(float(edge) for edge in box))
    if 2 in changes:
        scene = expose(
            scene, gain=float(np.exp(rng.uniform(-0.4, 0.4))), gamma=float(rng.uniform(0.85, 1.18))
        )
    if 3 in changes:
        scene = add_noise(scene, sigma=float(rng.uniform(3, 12)), rng=rng)
    if 4 in changes:
        buffer = io.BytesIO()
        scene.save(buffer, "JPEG", quality=int(rng.integers(20, 60)))
        scene = Image.open(buffer)
        scene.load()
    return scene


def expose(picture: Image.Image, *, gain: float, gamma: float) -> Image.Image:
    """The picture with levels 255 * (gain * x) ** gamma, cut to 0..255."""
    levels = np.clip(gain * np.arange(256) / 255, 0, 1) ** gamma * 255
    return picture.point([round(level) for level in levels.tolist()] * len(picture.getbands()))


def add_noise(picture: Image.Image, *, sigma: float, rng: np.random.Generator) -> Image.Image:
    """The picture with Gaussian noise of `sigma` levels."""
    pixels: NDArray[np.float32] = np.asarray(picture, dtype=np.float32)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(sigma)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


_KINDS = (
    *(("jpg", {"quality": 88}), ("jpg", {"quality": 75, "progressive": True}), ("jpeg", {"quality": 92})),
    *(("png", {"compress_level": 1}), ("webp", {"quality": 80, "method": 0}), ("tif", {}), ("bmp", {})),
)


def write_photographs(folder: Path, n: int, *, seed: int) -> list[Path]:
    """Writes `n` different photographs of 400 to 640 pixels as JPEG, PNG, WebP, TIFF and BMP.

    Names are `photo-0000.jpg` and so on; half of them are JPEG. Some JPEGs carry EXIF. The same arguments write
    the same pictures. About 10 ms each.
    """
    rng = np.random.default_rng(seed)
    photographs = list(load_photographs().values())
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(n):
        picture = photographs[int(rng.integers(len(photographs)))]
        keep = rng.uniform(0.4, 0.9, 2)
        corner = rng.uniform(0, 1 - keep)
        edges = np.concatenate([corner, corner + keep]) * np.array([*picture.size, *picture.size])
        size = (int(rng.integers(400, 641)), int(rng.integers(400, 641)))
        picture = picture.resize(size, Image.Resampling.BILINEAR, box=tuple(float(edge) for edge in edges))
        turn = int(rng.integers(-1, 7))
        if turn >= 0:
            picture = picture.transpose(Image.Transpose(turn))
        picture = expose(
            picture, gain=float(np.exp(rng.uniform(-0.4, 0.4))), gamma=float(rng.uniform(0.8, 1.25))
        )
        if rng.random() < 0.3:
            picture = add_noise(picture, sigma=float(rng.uniform(2, 10)), rng=rng)
        kind = int(rng.integers(3)) if number % 2 == 0 else int(rng.integers(3, len(_KINDS)))
        suffix, options = _KINDS[kind]
        exif = Image.Exif()
        if kind < 3 and rng.random() < 0.5:
            exif[0x010F] = "Test Camera"
            exif[0x0112] = int(rng.integers(1, 9))
        path = folder / f"photo-{number:04d}.{suffix}"
        picture.save(path, **(options | ({"exif": exif} if len(exif) else {})))
        paths.append(path)
    return paths
