"""Masks, picks and points as arrays of numpy, which is loaded with this module: when it is asked for."""

from __future__ import annotations

import numpy as np

from watcher.domain.bitmask import BitMask

Positions = np.ndarray[tuple[int], np.dtype[np.int64]]


def decode_positions(mask: bytes) -> Positions:
    """The positions of a mask, ascending."""
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")
    return np.flatnonzero(bits).astype(np.int64)


def encode_positions(positions: Positions, length: int) -> BitMask:
    """The mask of some positions below `length`."""
    bits = np.zeros(length, dtype=np.uint8)
    bits[positions] = 1
    return BitMask(int.from_bytes(np.packbits(bits, bitorder="little").tobytes(), "little"))


def order_positions(mask: bytes, picks: bytes | None) -> tuple[Positions, int]:
    """The positions of a tag, those that a sampling picked first and in its order; and how many these are.

    Args:
        mask: of the tag.
        picks: positions as little-endian int64; None if no sampling made the tag.
    """
    positions = decode_positions(mask)
    if picks is None:
        return positions, 0
    ranked = np.frombuffer(picks, dtype="<i8")
    return np.concatenate([ranked, positions[~np.isin(positions, ranked)]]), len(ranked)


def decode_distances(distances: bytes | None) -> list[float]:
    """The distance of each pick, in the order of picking."""
    found: list[float] = np.frombuffer(distances or b"", dtype="<f4").tolist()
    return found


def encode_points(coordinates: bytes, mask: bytes | None) -> bytes:
    """The points of a projection for a page: n x 2 float32, then a byte each, 1 for those of the mask.

    Args:
        coordinates: n x 2 little-endian float64.
        mask: of a tag, if one is shown.
    """
    points = np.frombuffer(coordinates, dtype="<f8").astype("<f4").reshape(-1, 2)
    marks = np.zeros(len(points), dtype=np.uint8)
    if mask is not None:
        positions = decode_positions(mask)
        marks[positions[positions < len(points)]] = 1
    return points.tobytes() + marks.tobytes()
