"""What every embedder offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from watcher.domain.errors import ImageError
from watcher.images import DecodedImage


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Vectors of a batch of files, some of which may have been unreadable.

    Attributes:
        vectors: float32 of shape (n, dim), in the order of the files; a row of NaN for each unreadable one.
        errors: what is wrong with the unreadable ones, by their number in the batch.
    """

    vectors: NDArray[np.float32]
    errors: Mapping[int, ImageError] = field(default_factory=dict)


class Embedder(Protocol):
    """Turns pictures into vectors. Safe for many threads at once."""

    @property
    def name(self) -> str:
        """Kind and version, such as `descriptor-v1`: only vectors of one name may be compared."""

    @property
    def dim(self) -> int:
        """Length of each vector."""

    def embed(self, images: Sequence[DecodedImage]) -> NDArray[np.float32]:
        """Vectors of shape (len(images), dim), float32, in the order of the pictures."""

    def embed_bytes(self, contents: Sequence[bytes]) -> EmbeddedBatch:
        """The same from files, decoded no finer than the embedder needs; an unreadable file stops no other."""
