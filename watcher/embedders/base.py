"""What every embedder offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from watcher.domain.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddedBatch:
    """Vectors of a batch of files, some of which may have been unreadable.

    Attributes:
        vectors: float32 of shape (n, dim), in the order of the files; a row of NaN for each unreadable one.
        errors: what is wrong with the unreadable ones, by their number in the batch.
    """

    vectors: Vectors
    errors: Mapping[int, ImageError] = field(default_factory=dict)


class Embedder(Protocol):
    """Turns files of pictures into vectors, in two parts: one file at a time, then many at once.

    Safe for many threads at once.
    """

    @property
    def name(self) -> str:
        """Kind and version, at most 100 characters: only vectors of one name may be compared."""

    @property
    def dim(self) -> int:
        """Length of each vector."""

    @property
    def batch_size(self) -> int:
        """How many pictures `embed_prepared` takes at once."""

    def prepare(self, content: bytes) -> Any:
        """What `embed_prepared` needs of a file; small, so that many may wait.

        Raises:
            ImageError: the file is no picture this program can read.
        """

    def embed_prepared(self, prepared: Sequence[Any]) -> Vectors:
        """Vectors of shape (len(prepared), dim), float32, finite but for rows of NaN, in the order given.

        A row of NaN stands for a picture that the embedder refused; it stops no other.

        Raises:
            EmbedderError: no vectors; the class tells whether asking again may help.
        """


@runtime_checkable
class TokenEmbedder(Embedder, Protocol):
    """An embedder that shows a token, which may change."""

    def replace_token(self, token: str | None) -> None:
        """Sends another token from the next request on."""
