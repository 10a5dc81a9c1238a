"""Samplings: picking the samples worth labelling."""

from __future__ import annotations

from typing import Literal

from watcher.lightly.wire.base import ObjectId, ScoreType, TagName, Wire

SamplingMethodName = Literal["ACTIVE_LEARNING", "CORAL", "CORESET", "RANDOM"]


class StoppingCondition(Wire, frozen=True, kw_only=True):
    """When to stop.

    Attributes:
        n_samples: at least 1: a count that includes the preselected samples; below 1: a share of all; -1: not used.
        min_distance: stop before two picks would be closer than this; -1: not used.
    """

    n_samples: float | None = None
    min_distance: float | None = None


class SamplingConfig(Wire, frozen=True, kw_only=True):
    """The conditions of a sampling."""

    stopping_condition: StoppingCondition | None = None


class SamplingCreateRequest(Wire, frozen=True, kw_only=True):
    """A sampling; `row_count` is the number of rows the caller expects in the embedding."""

    new_tag_name: TagName
    method: SamplingMethodName
    config: SamplingConfig
    preselected_tag_id: ObjectId | None = None
    query_tag_id: ObjectId | None = None
    score_type: ScoreType | None = None
    row_count: float | None = None


class AsyncTaskData(Wire, frozen=True, kw_only=True):
    """The job that carries the sampling out."""

    job_id: str
