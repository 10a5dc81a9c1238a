"""Uploading an embedding to a server that gives its name out once, and whose answers are lost."""

from __future__ import annotations

import pytest

from tests.unit.lightly.conftest import DATASET
from tests.unit.lightly.servers import Reply
from watcher.domain.errors import ApiException, UnknownOutcomeError
from watcher.lightly.workflows.embeddings import upload_embeddings_csv


@pytest.mark.parametrize(
    ("lost", "error"), [(True, UnknownOutcomeError), (False, ApiException)], ids=["lost answer", "taken"]
)
def test_upload_embeddings_of_a_name_given_out_already_may_be_tried_again_only_after_a_lost_answer(
    start, connect, tmp_path, lost, error
):
    promised = {"id": "e" * 24, "name": "cams-1", "isProcessed": False, "createdAt": 1, "tags": []}
    n_asked = [0]

    def answer(seen):
        if seen.method == "DELETE":
            return {}
        if seen.path.endswith("/embeddings"):
            return [promised] if n_asked[0] else []
        n_asked[0] += 1
        if lost and n_asked[0] == 1:
            return Reply(body=b"{", headers={"Content-Length": "99", "Connection": "close"})
        return Reply(400, {"code": "EMBEDDING_NAME_EXISTS", "error": "taken"})

    with pytest.raises(error) as raised:
        upload_embeddings_csv(
            connect(start(answer).url), dataset_id=DATASET, path=tmp_path / "none.csv", name="cams-1"
        )
    assert type(raised.value) is error
    assert raised.value.retryable is lost


def test_upload_embeddings_whose_leftover_somebody_else_deleted_meanwhile_may_be_tried_again(
    start, connect, tmp_path
):
    leftover = {"id": "e" * 24, "name": "cams-1", "isProcessed": False, "createdAt": 1, "tags": []}

    def answer(seen):
        if seen.method == "DELETE":
            return Reply(404, {"code": "EMBEDDING_UNKNOWN", "error": "gone"})
        if seen.path.endswith("/embeddings"):
            return [leftover]
        return Reply(400, {"code": "EMBEDDING_NAME_EXISTS", "error": "taken"})

    with pytest.raises(UnknownOutcomeError, match="cams-1"):
        upload_embeddings_csv(
            connect(start(answer).url), dataset_id=DATASET, path=tmp_path / "none.csv", name="cams-1"
        )
