"""Draws what three fixed cameras see: a street, a yard with a warehouse, a country road.

Backgrounds are drawn once a camera; a frame adds what moves, the light of the hour, and the noise of a sensor.
About 40 ms a frame of 960 x 640.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
Colour = tuple[int, int, int]

WIDTH: Final = 960
HEIGHT: Final = 640

_CAR_COLOURS: Final[tuple[Colour, ...]] = (
    *((168, 32, 36), (38, 62, 120), (222, 222, 218), (52, 54, 58), (120, 126, 130), (196, 150, 40)),
)
# Light over the day, from dawn (0) to night (1): red, green, blue.
_HOURS: Final = (0.0, 0.12, 0.45, 0.7, 0.82, 0.92, 1.0)
_LIGHTS: Final = (
    *((0.55, 0.5, 0.6), (0.95, 0.88, 0.8), (1.0, 1.0, 1.0), (1.0, 0.92, 0.8), (0.8, 0.55, 0.45)),
    *((0.3, 0.3, 0.42), (0.16, 0.18, 0.28)),
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What stands where in front of a camera; heights and places as shares of the picture.

    Attributes:
        name: folder of the camera's frames.
        horizon: where the sky ends.
        road: upper and lower edge of the road.
        skyline: "houses", "hall" or "hills".
        ground: colour beside the road.
    """

    name: str
    horizon: float
    road: tuple[float, float]
    skyline: str
    ground: Colour


LAYOUTS: Final = (
    Layout("cam-1", 0.5, (0.66, 0.9), "houses", (122, 120, 114)),
    Layout("cam-2", 0.32, (0.74, 0.96), "hall", (134, 128, 116)),
    Layout("cam-3", 0.42, (0.62, 0.76), "hills", (96, 124, 62)),
)


class Camera:
    """One camera. The same layout, seed and arguments draw the same frame."""

    def __init__(self, layout: Layout, *, seed: int) -> None:
        self.layout = layout
        self._rng = np.random.default_rng(seed)
        self._background, self._windows, self._is_sky = _draw_background(layout, self._rng)
        self._clouds = _build_smooth_noise(self._rng, 5, 12, (int(layout.horizon * HEIGHT), WIDTH * 2))
        self._pole = float(self._rng.uniform(0.08, 0.92))

    def draw(self, *, hour: float, step: int, n_cars: int, n_people: int) -> Image.Image:
        """A frame.

        Args:
            hour: 0 = dawn, 1 = night.
            step: frames since the camera started; clouds and whatever moves advance with it.
            n_cars: cars in the picture.
            n_people: people in the picture.
        """
        picture = Image.fromarray(_add_clouds(self._background, self._is_sky, self._clouds, step))
        draw = ImageDraw.Draw(picture, "RGBA")
        movers = np.random.default_rng([int(self._pole * 1000), n_cars, n_people])
        lamps: list[tuple[float, float, float]] = []
        for number in range(n_people):
            place = float(movers.random()) + step * (0.004 if number % 2 else -0.004)
            coat = _CAR_COLOURS[int(movers.integers(len(_CAR_COLOURS)))]
            _draw_person(draw, self.layout, place=place, coat=coat)
        for number in range(n_cars):
            lane = number % 2
            place = (float(movers.random()) + step * (0.05 if lane else -0.06)) % 1.3 - 0.15
            colour = _CAR_COLOURS[int(movers.integers(len(_CAR_COLOURS)))]
            lamps.append(_draw_car(draw, self.layout, place=place, lane=lane, colour=colour))
        return self._light(picture.filter(ImageFilter.GaussianBlur(0.7)), hour, lamps, step)

    def _light(
        self, picture: Image.Image, hour: float, lamps: list[tuple[float, float, float]], step: int
    ) -> Image.Image:
        light = np.array(
            [np.interp(hour, _HOURS, [c[k] for c in _LIGHTS]) for k in range(3)], dtype=np.float32
        )
        pixels = np.asarray(picture, dtype=np.float32) * light
        dark = float(np.clip(1.25 - 1.5 * float(light.mean()), 0, 1))
        if dark > 0:
            shine = Image.fromarray(self._windows)
            draw = ImageDraw.Draw(shine)
            for x, y, radius in lamps:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(255, 240, 200))
            glow = np.asarray(shine.filter(ImageFilter.GaussianBlur(9)), dtype=np.float32)
            pixels += dark * (np.asarray(shine, dtype=np.float32) * 0.7 + glow * 0.8)
        noise = np.random.default_rng(step).standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
        pixels += noise * np.float32(2.0 + 4.0 * dark)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _build_smooth_noise(
    rng: np.random.Generator, rows: int, columns: int, shape: tuple[int, int], n_octaves: int = 4
) -> Floats:
    """Sum of enlarged random grids, each twice as fine and half as strong as the one before; from 0 to 1."""
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(n_octaves):
        grid = rng.random((rows * 2**octave, columns * 2**octave), dtype=np.float32)
        enlarged = Image.fromarray(grid).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        total += np.asarray(enlarged) / np.float32(2**octave)
    scaled: Floats = (total - total.min()) / (total.max() - total.min())
    return scaled


def _add_clouds(
    background: NDArray[np.uint8], is_sky: NDArray[np.bool_], clouds: Floats, step: int
) -> NDArray[np.uint8]:
    """Clouds drift to the left by a pixel a step, behind everything that stands before the sky."""
    height = len(clouds)
    seen = np.roll(clouds, -step, axis=1)[:, :WIDTH]
    sky = background[:height].astype(np.float32)
    cover = (np.clip((seen - 0.5) * 3, 0, 0.85)[..., None] * is_sky[..., None]).astype(np.float32)
    drawn = background.copy()
    drawn[:height] = (sky * (1 - cover) + np.array([244, 244, 246], dtype=np.float32) * cover).astype(
        np.uint8
    )
    return drawn


def _draw_background(
    layout: Layout, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """The empty scene by day, what shines in it by night (both HEIGHT x WIDTH x 3), and where the sky is seen."""
    horizon = int(layout.horizon * HEIGHT)
    share = np.linspace(0, 1, horizon, dtype=np.float32)[:, None, None]
    pixels = np.empty((HEIGHT, WIDTH, 3), dtype=np.float32)
    high, low = np.array([88, 142, 210], dtype=np.float32), np.array([186, 208, 228], dtype=np.float32)
    pixels[:horizon] = high * (1 - share) + low * share
    texture = _build_smooth_noise(rng, 24, 30, (HEIGHT - horizon, WIDTH), 5)[..., None]
    pixels[horizon:] = np.array(layout.ground, dtype=np.float32) * (0.72 + 0.5 * texture)
    top, bottom = (int(edge * HEIGHT) for edge in layout.road)
    asphalt = _build_smooth_noise(rng, 30, 60, (bottom - top, WIDTH), 4)[..., None]
    pixels[top:bottom] = np.array([86, 87, 90], dtype=np.float32) * (0.86 + 0.22 * asphalt)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    shine = Image.new("RGB", (WIDTH, HEIGHT))
    draw, night = ImageDraw.Draw(picture), ImageDraw.Draw(shine)
    if layout.skyline == "houses":
        _draw_houses(draw, night, rng)
    elif layout.skyline == "hall":
        _draw_hall(draw, night, horizon, int(0.6 * HEIGHT))
    else:
        _draw_hills(draw, horizon, rng)
    middle = (top + bottom) // 2
    for x in range(-20, WIDTH, 96):
        draw.polygon(
            [(x, middle + 3), (x + 44, middle + 3), (x + 47, middle - 2), (x + 3, middle - 2)],
            (226, 224, 214),
        )
    for edge in (top, bottom - 5):
        draw.rectangle((0, edge, WIDTH, edge + 4), (164, 162, 154))
    _draw_lamp_post(draw, night, int(rng.uniform(0.1, 0.9) * WIDTH), top, horizon)
    drawn = np.asarray(picture)
    is_sky = (drawn[:horizon] == pixels[:horizon].astype(np.uint8)).all(axis=2)
    return drawn, np.asarray(shine), is_sky


def _draw_houses(draw: ImageDraw.ImageDraw, night: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    base = int(0.63 * HEIGHT)
    x = -30
    while x < WIDTH:
        width, height = int(rng.integers(90, 190)), int(rng.integers(130, 300))
        shade = rng.integers(-20, 20)
        colour = (
            rng.choice(np.array([(176, 118, 92), (188, 172, 148), (142, 140, 146), (204, 190, 160)])) + shade
        )
        wall: Colour = (int(colour[0]), int(colour[1]), int(colour[2]))
        draw.rectangle((x, base - height, x + width, base), wall)
        draw.rectangle((x - 4, base - height - 9, x + width + 4, base - height), (84, 70, 66))
        for row in range(base - height + 18, base - 40, 42):
            for column in range(x + 14, x + width - 24, 34):
                draw.rectangle((column, row, column + 19, row + 26), (66, 78, 92))
                draw.line((column, row + 13, column + 19, row + 13), (210, 206, 198))
                if rng.random() < 0.35:
                    night.rectangle((column, row, column + 19, row + 26), (230, 180, 96))
        x += width + int(rng.integers(0, 26))
    draw.rectangle((0, base, WIDTH, base + 12), (150, 146, 138))
    for _ in range(5):
        _draw_tree(draw, int(rng.integers(20, WIDTH - 20)), base + 10, int(rng.integers(60, 110)), rng)


def _draw_hall(draw: ImageDraw.ImageDraw, night: ImageDraw.ImageDraw, horizon: int, base: int) -> None:
    left, right, top = int(0.12 * WIDTH), int(0.78 * WIDTH), horizon - 70
    draw.rectangle((left, top, right, base), (158, 164, 172))
    for x in range(left, right, 12):
        draw.line((x, top, x, base), (146, 152, 160))
    draw.polygon(
        [(left - 10, top), (right + 10, top), (right - 20, top - 34), (left + 20, top - 34)], (92, 98, 108)
    )
    for gate in range(4):
        x = left + 46 + gate * 150
        draw.rectangle((x, base - 96, x + 96, base), (206, 122, 46) if gate % 2 else (70, 92, 122))
        for y in range(base - 96, base, 14):
            draw.line((x, y, x + 96, y), (60, 62, 66))
        night.ellipse((x + 38, base - 122, x + 58, base - 112), (255, 244, 214))
    for index in range(5):
        x, y = int(0.82 * WIDTH) + (index % 2) * 66, base - 34 * (index // 2 + 1)
        colour = ((150, 52, 44), (46, 96, 120), (168, 140, 60))[index % 3]
        draw.rectangle((x, y, x + 64, y + 32), colour, (40, 40, 42))


def _draw_hills(draw: ImageDraw.ImageDraw, horizon: int, rng: np.random.Generator) -> None:
    xs = np.arange(0, WIDTH + 8, 8)
    for layer, colour in enumerate([(128, 146, 150), (98, 124, 104), (82, 112, 68)]):
        waves = sum(
            float(rng.uniform(8, 26))
            * np.sin(xs * float(rng.uniform(0.004, 0.02)) + float(rng.uniform(0, 6)))
            for _ in range(3)
        )
        ys = horizon - 46 + layer * 24 + np.asarray(waves) * (1 - 0.2 * layer)
        draw.polygon(
            [*zip(xs.tolist(), ys.tolist(), strict=True), (WIDTH, horizon + 40), (0, horizon + 40)], colour
        )
    for _ in range(14):
        y = int(rng.integers(horizon + 12, int(0.6 * HEIGHT)))
        _draw_tree(draw, int(rng.integers(0, WIDTH)), y, 24 + (y - horizon) // 2, rng)


def _draw_tree(draw: ImageDraw.ImageDraw, x: int, base: int, height: int, rng: np.random.Generator) -> None:
    draw.rectangle((x - height // 18, base - height // 2, x + height // 18, base), (82, 62, 46))
    for _ in range(34):
        radius = float(rng.uniform(0.08, 0.17)) * height
        cx = x + float(rng.normal(0, 0.15)) * height
        cy = base - 0.68 * height + float(rng.normal(0, 0.13)) * height
        shade = int(rng.integers(-18, 24))
        draw.ellipse(
            (cx - radius, cy - radius, cx + radius, cy + radius), (54 + shade, 92 + shade, 44 + shade // 2)
        )


def _draw_lamp_post(
    draw: ImageDraw.ImageDraw, night: ImageDraw.ImageDraw, x: int, base: int, horizon: int
) -> None:
    top = max(40, horizon - 110)
    draw.rectangle((x - 3, top, x + 3, base), (74, 78, 82))
    draw.rectangle((x - 3, top, x + 46, top + 5), (74, 78, 82))
    draw.rectangle((x + 34, top + 4, x + 56, top + 10), (200, 200, 190))
    night.ellipse((x + 28, top, x + 62, top + 22), (255, 226, 170))


def _draw_car(
    draw: ImageDraw.ImageDraw, layout: Layout, *, place: float, lane: int, colour: Colour
) -> tuple[float, float, float]:
    """Draws a car from the side; returns where its headlight is, and how large."""
    top, bottom = (edge * HEIGHT for edge in layout.road)
    length = (bottom - top) * (1.05 if lane else 0.85)
    height = length * 0.36
    x, y = place * WIDTH, (bottom - 0.12 * (bottom - top)) if lane else (bottom - 0.55 * (bottom - top))
    draw.ellipse((x - 4, y - 5, x + length + 4, y + 8), (20, 20, 22, 120))
    draw.rounded_rectangle(
        (x, y - height * 0.62, x + length, y - height * 0.14), height * 0.16, (*colour, 255)
    )
    cabin = [(0.2, 0.6), (0.32, 1.0), (0.7, 1.0), (0.84, 0.6)]
    draw.polygon([(x + a * length, y - b * height) for a, b in cabin], (*colour, 255))
    for left, right in ((0.27, 0.49), (0.52, 0.77)):
        pane = [(left, 0.62), (max(left, 0.345), 0.94), (min(right, 0.69), 0.94), (right, 0.62)]
        draw.polygon([(x + a * length, y - b * height) for a, b in pane], (58, 72, 86, 255))
    for wheel in (0.2, 0.8):
        for size, shade in ((0.2, 26), (0.1, 150)):
            cx, cy, r = x + wheel * length, y - 0.14 * height, size * height
            draw.ellipse((cx - r, cy - r, cx + r, cy + r), (shade, shade, shade + 2, 255))
    front = x + length * (0.97 if lane else 0.03)
    return front, y - height * 0.42, height * 0.11


def _draw_person(draw: ImageDraw.ImageDraw, layout: Layout, *, place: float, coat: Colour) -> None:
    base = layout.road[0] * HEIGHT - 2
    height = 46 + 40 * layout.road[0]
    x = (place % 1.0) * WIDTH
    draw.ellipse((x - 14, base - 3, x + 14, base + 4), (20, 20, 22, 110))
    draw.line((x - 4, base, x, base - 0.45 * height, x + 5, base), (44, 48, 66, 255), 5)
    draw.rounded_rectangle((x - 8, base - 0.86 * height, x + 8, base - 0.4 * height), 6, (*coat, 255))
    draw.ellipse((x - 6, base - height - 2, x + 6, base - 0.84 * height), (206, 164, 138, 255))
