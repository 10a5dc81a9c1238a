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


def find_default_distances(embedder: str) -> tuple[float | None, float | None]:
    """The measured distances of near-duplicates and of repeats by the embedder's name; None where none is known."""
    return (NEAR_DUPLICATE_DISTANCE, REPEAT_DISTANCE) if embedder == NAME else (None, None)
