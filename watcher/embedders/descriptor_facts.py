"""What is known of the descriptor before a picture is described: numpy and Pillow are not loaded for it."""

from __future__ import annotations

from typing import Final

# Any change to the numbers and steps of `descriptor.py` is another descriptor: raise the version in the name.
NAME: Final = "descriptor-v1"
DIM: Final = 128
CHUNK_IMAGES: Final = 32

# Euclidean distances up to which two pictures count as near-duplicates, and as the same picture again; both are
# measured in docs/descriptor.md. A distance of 0.245 is a cosine of 0.97.
NEAR_DUPLICATE_DISTANCE: Final = 0.245
REPEAT_DISTANCE: Final = 0.002


_GREY: Final = "-grey"


def compute_grey_suffix(bits: int | None) -> str:
    """What is added to the name of any embedder whose watch says how many bits its greys have: the pictures differ."""
    return "" if bits is None else f"{_GREY}{bits}"


def find_default_distances(embedder: str) -> tuple[float | None, float | None]:
    """The measured distances of near-duplicates and of repeats by the embedder's name; None where none is known."""
    is_descriptor = embedder.partition(_GREY)[0] == NAME
    return (NEAR_DUPLICATE_DISTANCE, REPEAT_DISTANCE) if is_descriptor else (None, None)
