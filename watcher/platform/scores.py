"""Active-learning scores, of a tag (both generations) or of a dataset (1.5.26)."""

from __future__ import annotations

import math
import re
import struct

from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.scores import (
    DatasetScoreData,
    DatasetScoreTypeData,
    ScoreCreateRequest,
    ScoreData,
    TagScoresData,
)
from watcher.platform import access
from watcher.platform.calls import Call, Operation, integer, text
from watcher.platform.faults import Fault, invalid, unknown
from watcher.platform.secrets import is_id, new_id
from watcher.platform.store import scores as store
from watcher.platform.store.scores import ScoreRow

TASK_NAME = text("taskName", min_length=1, max_length=255, required=True)
TIMESTAMP = integer("predictionUUIDTimestamp")
_TASK = re.compile(r"[a-zA-Z0-9_+=,.@:/-]+")
_MAX_TYPE = 255


def _encode(request: ScoreCreateRequest) -> bytes:
    if len(request.score_type) > _MAX_TYPE:
        raise invalid(f"scoreType has {_MAX_TYPE} characters at the most")
    if not all(map(math.isfinite, request.scores)):
        raise invalid("the scores must be finite")
    return struct.pack(f"<{len(request.scores)}d", *request.scores)


def _decode(row: ScoreRow) -> list[float]:
    return list(struct.unpack(f"<{len(row.values) // 8}d", row.values))


def get_tag_scores(call: Call) -> list[TagScoresData]:
    """The kinds of scores stored for a tag."""
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        rows = store.load_tag_scores(session, tag_id=tag.id)
    return [
        TagScoresData(id=row.id, tag_id=row.tag_id, score_type=row.score_type, created_at=row.created_at)
        for row in rows
    ]


def create_tag_score(call: Call) -> CreateEntityResponse:
    """Stores scores of a tag, one for each of its samples in ascending bit order."""
    request = call.read(ScoreCreateRequest)
    values = _encode(request)
    score_id = new_id(call.now_s)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        if len(request.scores) != tag.n_set:
            raise invalid(
                f"the tag has {tag.n_set} samples, but {len(request.scores)} scores came",
                "SCORES_CANNOT_BE_SET",
            )
        row = {
            "id": score_id,
            "dataset_id": dataset.id,
            "tag_id": tag.id,
            "score_type": request.score_type,
            "values": values,
            "created_at": call.now_ms,
        }
        store.replace_score(session, values=row)
    return CreateEntityResponse(id=score_id)


def _unknown() -> Fault:
    return unknown("SCORE_UNKNOWN", "there are no such scores")


def get_tag_score(call: Call) -> ScoreData:
    """Scores of a tag."""
    score_id = call.path["scoreId"]
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        tag = access.find_tag(session, dataset.id, call.path["tagId"])
        row = store.load_score(session, dataset_id=dataset.id, score_id=score_id) if is_id(score_id) else None
    if row is None or row.tag_id != tag.id:
        raise _unknown()
    return ScoreData(
        id=row.id, tag_id=tag.id, score_type=row.score_type, scores=_decode(row), created_at=row.created_at
    )


def get_dataset_scores(call: Call) -> list[DatasetScoreTypeData]:
    """The kinds of scores stored for a dataset."""
    timestamp = TIMESTAMP.of(call)
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        rows = store.load_dataset_scores(session, dataset_id=dataset.id, timestamp=timestamp)
    return [
        DatasetScoreTypeData(
            id=row.id,
            dataset_id=row.dataset_id,
            prediction_uuid_timestamp=row.prediction_timestamp,
            task_name=row.task_name,
            score_type=row.score_type,
            created_at=row.created_at,
        )
        for row in rows
    ]


def create_dataset_score(call: Call) -> CreateEntityResponse:
    """Stores scores of a dataset, one for each sample in mapping order."""
    task_name = TASK_NAME.must(call)
    if not _TASK.fullmatch(task_name):
        raise invalid("taskName may have letters, digits and _+=,.@:/- only")
    timestamp = TIMESTAMP.of(call)
    request = call.read(ScoreCreateRequest)
    values = _encode(request)
    score_id = new_id(call.now_s)
    with call.platform.database.write() as session:
        dataset = access.find_dataset(session, call, lock=True)
        if len(request.scores) != dataset.n_samples:
            raise invalid(
                f"the dataset has {dataset.n_samples} samples, but {len(request.scores)} scores came",
                "SCORES_CANNOT_BE_SET",
            )
        row = {
            "id": score_id,
            "dataset_id": dataset.id,
            "tag_id": None,
            "task_name": task_name,
            "prediction_timestamp": call.now_ms if timestamp is None else timestamp,
            "score_type": request.score_type,
            "values": values,
            "created_at": call.now_ms,
        }
        store.replace_score(session, values=row)
    return CreateEntityResponse(id=score_id)


def get_dataset_score(call: Call) -> DatasetScoreData:
    """Scores of a dataset."""
    score_id = call.path["scoreId"]
    with call.platform.database.read() as session:
        dataset = access.find_dataset(session, call)
        row = store.load_score(session, dataset_id=dataset.id, score_id=score_id) if is_id(score_id) else None
    if row is None or row.tag_id is not None:
        raise _unknown()
    return DatasetScoreData(
        id=row.id,
        dataset_id=row.dataset_id,
        prediction_uuid_timestamp=row.prediction_timestamp,
        task_name=row.task_name,
        score_type=row.score_type,
        scores=_decode(row),
        created_at=row.created_at,
    )


_TAG = "/v1/datasets/{datasetId}/tags/{tagId}/scores"
_DATASET = "/v1/datasets/{datasetId}/predictions/scores"
OPERATIONS = (
    Operation(
        "GET",
        _TAG,
        "getActiveLearningScoresByTagId",
        get_tag_scores,
        "Kinds of scores of a tag",
        reply=list[TagScoresData],
    ),
    Operation(
        "POST",
        _TAG,
        "createOrUpdateActiveLearningScoreByTagId",
        create_tag_score,
        "Store scores for a tag",
        reply=CreateEntityResponse,
        body=ScoreCreateRequest,
        status=201,
    ),
    Operation(
        "GET",
        _TAG + "/{scoreId}",
        "getActiveLearningScoreByScoreId",
        get_tag_score,
        "Read scores",
        reply=ScoreData,
    ),
    Operation(
        "GET",
        _DATASET,
        "getActiveLearningV2ScoresByDatasetId",
        get_dataset_scores,
        "Kinds of scores of a dataset",
        reply=list[DatasetScoreTypeData],
        query=(TIMESTAMP,),
    ),
    Operation(
        "POST",
        _DATASET,
        "createOrUpdateActiveLearningV2ScoreByDatasetId",
        create_dataset_score,
        "Store scores for a dataset",
        reply=CreateEntityResponse,
        body=ScoreCreateRequest,
        query=(TASK_NAME, TIMESTAMP),
        status=201,
    ),
    Operation(
        "GET",
        _DATASET + "/{scoreId}",
        "getActiveLearningV2ScoreByDatasetAndScoreId",
        get_dataset_score,
        "Read scores of a dataset",
        reply=DatasetScoreData,
    ),
)
