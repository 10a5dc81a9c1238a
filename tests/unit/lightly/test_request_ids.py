"""Every try of a request bears an id that its error and the server know too, and is counted in full."""

from __future__ import annotations

import pickle

import pytest

from tests.unit.lightly.conftest import DATASET
from tests.unit.lightly.servers import Reply
from watcher.domain.errors import NotFoundException, TransportError
from watcher.lightly.transport import RequestSeen
from watcher.logs import describe_error

TAGS = "/v1/datasets/{datasetId}/tags"


def ids_of(server):
    return [seen.headers.get("X-Request-Id") for seen in server.seen]


def test_every_try_bears_an_id_of_its_own_and_its_error_names_the_last(start, connect):
    server = start(lambda _seen: Reply(status=503))
    with pytest.raises(Exception, match="503") as caught:
        connect(server.url).call("GET", TAGS, path_params={"datasetId": DATASET})
    ids = ids_of(server)
    assert len(set(ids)) == 3
    assert None not in ids
    assert describe_error(caught.value)["request_id"] == ids[-1]
    assert describe_error(pickle.loads(pickle.dumps(caught.value)))["kind"] == "ServiceException"


def test_lost_answer_names_its_request(start_raw, connect):
    url = start_raw(lambda connection, _stop: connection.close())
    with pytest.raises(TransportError) as caught:
        connect(url).call("GET", TAGS, path_params={"datasetId": DATASET})
    assert caught.value.request_id


def test_transports_share_no_ids(start, connect):
    server = start(lambda _seen: [])
    for _ in range(2):
        connect(server.url).call("GET", TAGS, path_params={"datasetId": DATASET})
    first, second = ids_of(server)
    assert first != second


def test_error_without_a_request_is_described_without_one():
    assert describe_error(ValueError("x")) == {"error": "x", "kind": "ValueError"}


def test_observer_is_told_of_retries_and_lengths(start, connect):
    told: list[RequestSeen] = []
    answers = iter([Reply(status=503), Reply(body=b'{"id":"1"}'), Reply(status=404, body=b"gone")])
    server = start(lambda _seen: next(answers))
    transport = connect(server.url, observer=told.append)
    transport.call("PUT", TAGS, path_params={"datasetId": DATASET}, body={"a": 1})
    with pytest.raises(NotFoundException):
        transport.call("GET", TAGS, path_params={"datasetId": DATASET})
    assert [(seen.code, seen.is_retry, seen.n_sent_bytes, seen.n_received_bytes) for seen in told] == [
        ("503", False, 7, 0),
        ("200", True, 7, 10),
        ("404", False, 0, 4),
    ]
