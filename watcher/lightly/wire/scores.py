"""Active-learning scores: one number a sample of a tag, ascending bit order."""

from __future__ import annotations

from typing import Annotated

import msgspec

from watcher.lightly.wire.base import ScoreType, TimestampMs, Wire


class ScoreCreateRequest(Wire, frozen=True, kw_only=True):
    """Replaces an earlier list of the same type."""

    score_type: ScoreType
    scores: Annotated[list[float], msgspec.Meta(min_length=1)]


class TagScoresData(Wire, frozen=True, kw_only=True):
    """A kind of scores stored for a tag."""

    id: str
    tag_id: str
    score_type: str
    created_at: TimestampMs


class ScoreData(Wire, frozen=True, kw_only=True):
    """Scores of a tag."""

    id: str
    tag_id: str
    score_type: str
    scores: list[float]
    created_at: TimestampMs


class DatasetScoreTypeData(Wire, frozen=True, kw_only=True):
    """A kind of scores stored for a dataset (1.5.26)."""

    id: str
    dataset_id: str
    prediction_uuid_timestamp: TimestampMs = msgspec.field(name="predictionUUIDTimestamp")
    task_name: str
    score_type: str
    created_at: TimestampMs


class DatasetScoreData(Wire, frozen=True, kw_only=True):
    """Scores of a dataset (1.5.26)."""

    id: str
    dataset_id: str
    prediction_uuid_timestamp: TimestampMs = msgspec.field(name="predictionUUIDTimestamp")
    task_name: str
    score_type: str
    scores: list[float]
    created_at: TimestampMs
