"""Embeddings: the CSV's way in and out."""

from __future__ import annotations

import numpy as np
import pytest
import requests

from tests.integration.platform.caller import Caller, build_csv
from tests.integration.platform.conftest import TOKEN

NAMES = ["a b.jpg", "ü,comma.jpg", 'quote".jpg', "d.jpg"]
VECTORS = [[0.0, 1.5], [2.0, -3.25], [1e-30, 7.0], [4.0, 5.0]]


@pytest.fixture
def dataset(api) -> str:
    path = api.create_dataset()
    api.create_samples(path, NAMES)
    return path


def begin(api, dataset, name="default") -> str:
    return api("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": name})["signedWriteUrl"]


def put(url, content) -> requests.Response:
    return requests.put(url, data=content, timeout=30)


def read_vectors(server, dataset, embedding_id):
    (path,) = (server.config.data_dir / "blobs" / dataset[-24:] / "embedding").glob(f"{embedding_id}-*.npy")
    return np.load(path)


def test_record_exists_at_once_and_is_processed_when_the_csv_was_read(server, api, dataset):
    reply = api("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": "default"})
    (record,) = api("GET", f"{dataset}/embeddings")
    assert (record["id"], record["isProcessed"]) == (reply["embeddingId"], False)
    path = f"{dataset}/embeddings/{reply['embeddingId']}"
    api.refused("GET", f"{path}/readCSVUrl", 422, "EMBEDDING_NOT_READY")
    content = build_csv(NAMES, VECTORS)
    assert put(reply["signedWriteUrl"], content).status_code == 200
    assert api("GET", f"{dataset}/embeddings")[0]["isProcessed"] is True
    assert requests.get(api("GET", f"{path}/readCSVUrl"), timeout=5).content == content
    vectors = read_vectors(server, dataset, reply["embeddingId"])
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.float32(VECTORS))
    api("PUT", f"{path}/isProcessed", json={"rowCount": 4})
    api.refused("PUT", f"{path}/isProcessed", 422, "EMBEDDING_ROW_COUNT_INVALID", json={"rowCount": 5})


def test_rows_in_any_order_are_stored_in_mapping_order(server, api, dataset):
    embedding = api.upload_embedding(dataset, NAMES[::-1], VECTORS[::-1])
    assert np.array_equal(read_vectors(server, dataset, embedding), np.float32(VECTORS))


def test_interrupted_upload_is_begun_again_under_the_same_name(api, dataset):
    first = api("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": "e"})
    assert put(first["signedWriteUrl"], b"filenames,embedding_0,labels\r\n").status_code == 422
    second = api("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": "e"})
    assert second["embeddingId"] == first["embeddingId"]
    content = build_csv(NAMES, VECTORS)
    assert put(second["signedWriteUrl"], content).status_code == 200
    api.refused(
        "GET", f"{dataset}/embeddings/writeCSVUrl", 409, "EMBEDDING_NAME_EXISTS", params={"name": "e"}
    )
    # A repeat whose first answer got lost is a success, another content is not.
    assert put(second["signedWriteUrl"], content).status_code == 200
    assert put(first["signedWriteUrl"], build_csv(NAMES, VECTORS[::-1])).status_code == 409


def test_list_is_newest_first_even_within_a_millisecond(api, dataset):
    names = [f"e{index}" for index in range(6)]
    for name in names:
        begin(api, dataset, name)
    assert [e["name"] for e in api("GET", f"{dataset}/embeddings")] == names[::-1]


GOOD = build_csv(NAMES, VECTORS).decode()
BAD = {
    "empty": ("", "empty"),
    "no rows": ("filenames,embedding_0,labels\r\n", "rows"),
    "wrong first column": (GOOD.replace("filenames", "names"), "header"),
    "no labels": (GOOD.replace(",labels", ",label"), "header"),
    "odd column": (GOOD.replace("embedding_1", "feature_1"), "embedding_<number>"),
    "twice the same column": (GOOD.replace("embedding_1", "embedding_0"), "twice"),
    "row too short": (GOOD.replace("d.jpg,4.0,5.0,0", "d.jpg,4.0"), "row 4 has 2 columns, the header has 4"),
    "no label": (GOOD.replace("d.jpg,4.0,5.0,0", "d.jpg,4.0,5.0"), "row 4 has 3 columns, the header has 4"),
    "row too long": (GOOD.replace("a b.jpg,0.0,1.5,0", "a b.jpg,0.0,1.5,0,0"), "row 1 has 5 columns"),
    "unquoted comma": (GOOD.replace('"ü,comma.jpg"', "ü,comma.jpg"), "row 2 has 5 columns"),
    "value for label": (GOOD.replace("d.jpg,4.0,5.0,0", "d.jpg,4.0,5.0,0.5"), "row 4 has the label '0.5'"),
    "text for label": (GOOD.replace("d.jpg,4.0,5.0,0", "d.jpg,4.0,5.0,cat"), "row 4 has the label 'cat'"),
    "empty label": (GOOD.replace("d.jpg,4.0,5.0,0", "d.jpg,4.0,5.0,"), "row 4 has the label ''"),
    "empty row": (GOOD.replace("d.jpg", "\r\nd.jpg"), "row 4 has 0 columns"),
    "row missing": (GOOD.replace("d.jpg,4.0,5.0,0\r\n", ""), "rows"),
    "name twice": (GOOD.replace("d.jpg", "a b.jpg"), "'a b.jpg' occurs twice"),
    "unknown name": (GOOD.replace("d.jpg", "e.jpg"), "no sample"),
    "NUL in a name": (GOOD.replace("d.jpg", "d\0.jpg"), ""),
    "not a number": (GOOD.replace("4.0", "four"), "four"),
    "NaN": (GOOD.replace("4.0", "nan"), "finite"),
    "infinity": (GOOD.replace("4.0", "-inf"), "finite"),
    "beyond float32": (GOOD.replace("4.0", "1e300"), "finite"),
    "open quote": (GOOD + '"', ""),
    "one row too many": (GOOD + "e.jpg,1,2,0\r\n", "no sample"),
}


@pytest.mark.parametrize("kind", BAD)
def test_wrong_csv_is_refused_and_leaves_nothing(light_api, kind):
    content, hint = BAD[kind]
    dataset = light_api.create_dataset()
    light_api.create_samples(dataset, NAMES)
    answer = put(begin(light_api, dataset), content.encode())
    assert answer.status_code == 422
    assert answer.json()["code"] in ("EMBEDDING_INVALID", "EMBEDDING_ROW_COUNT_INVALID", "MALFORMED_REQUEST")
    assert hint in answer.json()["error"]
    assert light_api("GET", f"{dataset}/embeddings")[0]["isProcessed"] is False


def test_csv_that_is_not_text_is_refused(light_api):
    dataset = light_api.create_dataset()
    light_api.create_samples(dataset, NAMES)
    for content in (b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n" + bytes(1000), b"a" * (5 * 1024 * 1024)):
        assert put(begin(light_api, dataset), content).status_code == 422


def test_row_that_never_ends_is_refused_at_its_bound(light_api):
    """Quoted line breaks once let a single row take as much memory as an upload may have bytes, and more."""
    dataset = light_api.create_dataset()
    light_api.create_samples(dataset, NAMES)
    head = GOOD.partition("\r\n")[0] + "\r\n"
    answer = put(begin(light_api, dataset), (head + '"a\n",' * 1_000_000).encode())
    assert answer.status_code == 422
    assert "a row is longer than 4194304 characters" in answer.json()["error"]
    # The bound is one of each row, not of all together.
    extra = ["x" * 100_000] * 12
    wide = "filenames,embedding_0,labels" + ",extra" * 12 + "\r\n"
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    wide += "".join(",".join([name, "1", "0", *extra]) + "\r\n" for name in quoted)
    assert put(begin(light_api, dataset), wide.encode()).status_code == 200


def test_extra_columns_are_ignored(server, api, dataset):
    content = GOOD.replace("labels", "labels,selected").replace(",0\r\n", ",0,1\r\n")
    url = begin(api, dataset)
    assert put(url, content.encode()).status_code == 200
    short = content.replace(",0,1\r\n", ",0\r\n", 1)
    answer = put(begin(api, dataset, "short"), short.encode())
    assert (answer.status_code, "row 1 has 4 columns" in answer.json()["error"]) == (422, True)


def test_labels_are_whole_numbers_of_any_sign_and_size(light_api):
    dataset = light_api.create_dataset()
    light_api.create_samples(dataset, NAMES)
    content = GOOD
    for label in ("-1", "+7", "9" * 30):
        content = content.replace(",0\r\n", f",{label}\r\n", 1)
    assert put(begin(light_api, dataset), content.encode()).status_code == 200


def test_samples_added_behind_the_tags_may_be_missing(server, api, dataset):
    api.create_initial_tag(dataset)
    api.create_samples(dataset, ["later.jpg"])
    embedding = api.upload_embedding(dataset, NAMES, VECTORS)
    assert read_vectors(server, dataset, embedding).shape == (4, 2)
    sample = api("GET", f"{dataset}/samples", params={"fileName": "later.jpg"})[0]["id"]
    path = f"/users/datasets/{dataset[-24:]}/samples/{sample}/embeddings"
    assert api("GET", path) == []
    first = api("GET", f"{dataset}/samples", params={"fileName": "d.jpg"})[0]["id"]
    assert [e["id"] for e in api("GET", path.replace(sample, first))] == [embedding]


def test_many_rows_come_in_pieces(build_server, monkeypatch):
    monkeypatch.setattr("watcher.platform.embedding_csv._BATCH", 3)
    server = build_server()
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        names = [f"{index}.jpg" for index in range(11)]
        api.create_samples(dataset, names)
        vectors = np.arange(33).reshape(11, 3)
        order = [3, 1, 2, 0, 10, 9, 8, 4, 5, 6, 7]
        embedding = api.upload_embedding(dataset, [names[i] for i in order], vectors[order])
        assert np.array_equal(read_vectors(server, dataset, embedding), vectors)
        repeated = [*names[:10], names[2]]  # the repeat lies in another piece
        answer = put(begin(api, dataset, "again"), build_csv(repeated, vectors))
        assert (answer.status_code, "'2.jpg' occurs twice" in answer.json()["error"]) == (422, True)


def test_deleted_embedding_is_gone_with_its_files(server, api, dataset):
    embedding = api.upload_embedding(dataset, NAMES, VECTORS)
    api("DELETE", f"{dataset}/embeddings/{embedding}")
    assert api("GET", f"{dataset}/embeddings") == []
    assert list((server.config.data_dir / "blobs" / dataset[-24:] / "embedding").iterdir()) == []
    api.refused("GET", f"{dataset}/embeddings/{embedding}/readCSVUrl", 404, "EMBEDDING_UNKNOWN")


def test_projection_computed_elsewhere_is_stored_and_read(api, dataset):
    embedding = api.upload_embedding(dataset, NAMES, VECTORS)
    path = f"{dataset}/embeddings/{embedding}/2d"
    body = {
        "name": "mine",
        "dimensionalityReductionMethod": "PCA",
        "coordinatesDimension1": [1, 2, 3, 4],
        "coordinatesDimension2": [5.5, 6, 7, 8],
    }
    projection = api("POST", path, 201, json=body)["id"]
    assert [p["name"] for p in api("GET", path)] == ["mine"]
    assert api("GET", f"{path}/{projection}")["coordinatesDimension2"] == [5.5, 6.0, 7.0, 8.0]
    for value in (1e300, -3.5e38):
        refused = {**body, "coordinatesDimension1": [1, 2, 3, value]}
        assert "3.4e+38" in api.refused("POST", path, 422, "MALFORMED_REQUEST", json=refused)
    body["coordinatesDimension2"] = [1]
    api.refused("POST", path, 422, "EMBEDDING_ROW_COUNT_INVALID", json=body)
    api.refused("GET", f"{path}/{'0' * 24}", 404, "EMBEDDING_2D_UNKNOWN")
