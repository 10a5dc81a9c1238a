"""Active-learning scores."""

from __future__ import annotations

from collections.abc import Sequence

from watcher.lightly.transport import Transport
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.scores import ScoreCreateRequest, ScoreData, TagScoresData

_SCORES = "/v1/datasets/{datasetId}/tags/{tagId}/scores"


def create_scores(
    transport: Transport, *, dataset_id: str, tag_id: str, score_type: str, scores: Sequence[float]
) -> str:
    """Stores one score a sample of the tag, in ascending bit order; replaces earlier ones of the type."""
    return transport.send_json(
        "POST",
        _SCORES,
        type=CreateEntityResponse,
        path_params={"datasetId": dataset_id, "tagId": tag_id},
        body=ScoreCreateRequest(score_type=score_type, scores=list(scores)),
        idempotent=True,
    ).id


def fetch_score_types(transport: Transport, *, dataset_id: str, tag_id: str) -> list[TagScoresData]:
    """Which kinds of scores a tag has."""
    return transport.get_json(
        _SCORES, type=list[TagScoresData], path_params={"datasetId": dataset_id, "tagId": tag_id}
    )


def fetch_scores(transport: Transport, *, dataset_id: str, tag_id: str, score_id: str) -> ScoreData:
    """One kind of scores of a tag."""
    return transport.get_json(
        f"{_SCORES}/{{scoreId}}",
        type=ScoreData,
        path_params={"datasetId": dataset_id, "tagId": tag_id, "scoreId": score_id},
    )
