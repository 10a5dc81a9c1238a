"""A descriptor of colour, texture and layout that needs no trained weights.

Meant for near-duplicates and for variety within a stream of camera pictures: it tells whether two pictures show the
same view, not what they show. `docs/descriptor.md` tells how it was made and how well it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from watcher.domain.errors import ImageError
from watcher.embedders.base import EmbeddedBatch
from watcher.embedders.descriptor_facts import CHUNK_IMAGES, DIM, NAME
from watcher.images import DEFAULT_LIMITS, DecodedImage, ImageLimits, read_image, turn_upright

Floats = NDArray[np.float32]

# Any change to the numbers and steps below is another descriptor: raise the version in its name.
_SIDE_PX: Final = 64
_DRAFT_PX: Final = 2 * _SIDE_PX
_FINE_BINS: Final = 17
_COARSE_BINS: Final = 8
_LAYOUT_CELLS: Final = 4
_WEIGHTS: Final = {"layout": 0.35, "colour": 2.4, "fine": 1.2, "coarse": 1.0, "overall": 0.1}


class DescriptorEmbedder:
    """128 numbers a picture, of length 1 together.

    Four views of the picture, shrunk to 64 x 64 whatever its shape and turned upright: 4 x 4 cells of brightness
    relative to its mean and spread; 2 x 2 cells of two colour differences relative to brightness; the directions of
    fine edges in 17 bins without regard to sign, in 2 x 2 cells; those of coarse edges in 8 bins with sign, in
    2 x 2 cells. Then mean, spread and edge strength with little weight, and a constant. All cells overlap.

    The same file gives the same vector on every machine but for the last digits of float32 and for differences
    between versions of the JPEG decoder.
    """

    name: Final = NAME
    dim: Final = DIM
    batch_size: Final = CHUNK_IMAGES

    def __init__(self, *, limits: ImageLimits = DEFAULT_LIMITS) -> None:
        self._limits = limits

    def embed(self, images: Sequence[DecodedImage]) -> Floats:
        """Vectors of shape (len(images), 128), float32, each of length 1. About 0.3 ms a picture beside shrinking."""
        vectors = np.empty((len(images), DIM), dtype=np.float32)
        for start in range(0, len(images), CHUNK_IMAGES):
            chunk = images[start : start + CHUNK_IMAGES]
            small = np.stack([_shrink(image) for image in chunk])
            vectors[start : start + len(chunk)] = compute_descriptors(small)
        return vectors

    def embed_bytes(self, contents: Sequence[bytes]) -> EmbeddedBatch:
        """The same from files; JPEGs are decoded at down to an eighth of their size, several times faster."""
        vectors = np.full((len(contents), DIM), np.nan, dtype=np.float32)
        errors: dict[int, ImageError] = {}
        for start in range(0, len(contents), CHUNK_IMAGES):
            small: list[Floats] = []
            places: list[int] = []
            for place in range(start, min(start + CHUNK_IMAGES, len(contents))):
                try:
                    small.append(self.prepare(contents[place]))
                except ImageError as error:
                    errors[place] = error
                else:
                    places.append(place)
            if small:
                vectors[places] = compute_descriptors(np.stack(small))
        return EmbeddedBatch(vectors=vectors, errors=errors)

    def prepare(self, content: bytes) -> Floats:
        """The picture as float32 of shape (64, 64, 3), upright.

        Raises:
            ImageError: the file is no picture this program can read.
        """
        return _shrink(read_image(content, limits=self._limits, draft_px=_DRAFT_PX))

    def embed_prepared(self, prepared: Sequence[Floats]) -> Floats:
        """Vectors of shape (len(prepared), 128); see `embed`."""
        return compute_descriptors(np.stack(prepared)) if prepared else np.empty((0, DIM), dtype=np.float32)


def compute_descriptors(small: Floats) -> Floats:
    """Descriptors of pictures of 64 x 64.

    Args:
        small: float32 of shape (n, 64, 64, 3): RGB from 0 to 1.

    Returns:
        float32 of shape (n, 128), each row of length 1.
    """
    n = len(small)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    luma = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue

    layout = _pool(luma, _LAYOUT_CELLS).reshape(n, -1)
    mean = layout.mean(axis=1, keepdims=True)
    spread = layout.std(axis=1, keepdims=True)
    layout = (layout - mean) / (spread + np.float32(0.02)) / np.float32(_LAYOUT_CELLS)

    brightness = red + green + blue + np.float32(0.15)
    warm = _pool((red - green) / brightness, 2).reshape(n, -1)
    cold = _pool((blue - np.float32(0.5) * (red + green)) / brightness, 2).reshape(n, -1)

    fine, strength = _compute_edges(_blur(_halve(luma)), _FINE_BINS, period=math.pi)
    coarse, _ = _compute_edges(_halve(_halve(_halve(luma))), _COARSE_BINS, period=2 * math.pi)

    overall = np.concatenate([mean, 2 * spread, 2 * strength, np.ones_like(mean)], axis=1)
    parts = {
        "layout": layout,
        "colour": np.concatenate([warm, cold], axis=1),
        "fine": fine,
        "coarse": coarse,
        "overall": overall,
    }
    joined = np.concatenate([np.float32(_WEIGHTS[name]) * part for name, part in parts.items()], axis=1)
    # The constant keeps even a black picture away from zero length.
    unit: Floats = joined / np.linalg.norm(joined, axis=1, keepdims=True)
    return unit


def _shrink(image: DecodedImage) -> Floats:
    small = image.view.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(turn_upright(small, image.orientation), dtype=np.float32) / np.float32(255)


def _compute_edges(luma: Floats, n_bins: int, *, period: float) -> tuple[Floats, Floats]:
    """Strength of the edges by direction and cell, as square roots of shares, and the overall strength.

    A histogram of oriented gradients (Dalal and Triggs, 2005) with few cells, compared by the Hellinger distance.
    Directions are shared between the two nearest bins, positions between overlapping cells.

    Args:
        luma: float32 of shape (n, h, w).
        n_bins: number of directions.
        period: pi if an edge and its reverse count as the same, 2 pi if not.

    Returns:
        float32 of shapes (n, n_bins * 4) and (n, 1).
    """
    down = np.zeros_like(luma)
    right = np.zeros_like(luma)
    down[:, 1:-1] = luma[:, 2:] - luma[:, :-2]
    right[:, :, 1:-1] = luma[:, :, 2:] - luma[:, :, :-2]
    length = np.sqrt(down * down + right * right)
    place = np.arctan2(down, right) * np.float32(n_bins / period) % np.float32(n_bins)
    bins = np.empty((len(luma), n_bins, *luma.shape[1:]), dtype=np.float32)
    for number in range(n_bins):
        gap = np.abs((place - number + n_bins / 2) % n_bins - n_bins / 2)
        np.multiply(length, np.maximum(np.float32(0), np.float32(1) - gap), out=bins[:, number])
    cells = _pool(bins, 2).reshape(len(luma), -1)
    total = cells.sum(axis=1, keepdims=True)
    # Without the small number the noise of an even picture would count as much as the edges of a sharp one.
    return np.sqrt(cells / (total + np.float32(0.2))), total / 4


def _halve(luma: Floats) -> Floats:
    n, height, width = luma.shape
    halved: Floats = luma.reshape(n, height // 2, 2, width // 2, 2).mean(axis=(2, 4), dtype=np.float32)
    return halved


def _blur(luma: Floats) -> Floats:
    """Smoothed by 1-2-1 in both directions; the border repeats."""
    padded = np.pad(luma, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    blurred: Floats = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / np.float32(16)
    return blurred


def _pool(values: Floats, n_cells: int) -> Floats:
    """Means over n_cells x n_cells overlapping cells of the last two axes, which are equally long.

    A cell weighs its pixels by a triangle twice as wide as the distance of the cells, so that a picture moved by a
    few pixels changes little.
    """
    side = values.shape[-1]
    step = side / n_cells
    centres = (np.arange(n_cells) + 0.5) * step
    weights = np.maximum(0.0, 1 - np.abs(np.arange(side)[None, :] + 0.5 - centres[:, None]) / step)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    pooled: Floats = weights @ values @ weights.T
    return pooled
