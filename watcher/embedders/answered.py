"""Numbers that a program or service answered, checked before they become vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from watcher.domain.errors import EmbedderAnswerError

if TYPE_CHECKING:
    from watcher.embedders.base import Vectors


def check_vector(value: Any, *, dim: int, what: str) -> Vectors:
    """The vector as float32 of shape (dim,).

    Raises:
        EmbedderAnswerError: another length, not numbers, not finite.
    """
    if not isinstance(value, list) or len(value) != dim:
        kind = f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
        raise EmbedderAnswerError(
            f"{what} answered {kind} instead of {dim} numbers: see `dim` in its settings"
        )
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in value):
        raise EmbedderAnswerError(f"{what} answered a vector that holds something other than numbers")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(value, dtype=np.float64).astype(np.float32)
    except OverflowError:
        vector = np.full(dim, np.inf, dtype=np.float32)
    if not np.isfinite(vector).all():
        raise EmbedderAnswerError(f"{what} answered a vector with numbers that are not finite in float32")
    return vector
