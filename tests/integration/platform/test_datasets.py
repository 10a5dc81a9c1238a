"""Datasets, quota, versions."""

from __future__ import annotations

import pytest
import requests


def test_version_calls_need_no_token(api):
    for path, expected in (("/v1/versions/pip/minimum", "1.2.0"), ("/v1/versions/pip/latest", "1.5.26")):
        assert requests.get(api.url + path, params={"currentVersion": "1.2.8"}, timeout=5).json() == expected
    assert requests.get(api.url + "/ping", timeout=5).status_code == 200


def test_quota_is_a_count_as_text(api):
    assert api("GET", "/v1/quota") == "10000000"


def test_new_dataset_is_listed_and_found_by_name(api):
    api.create_dataset("street scenes")
    api.create_dataset("street")
    assert [d["name"] for d in api("GET", "/v1/datasets")] == ["street scenes", "street"]
    exact = api("GET", "/v1/datasets/query/name/street", params={"exact": "True", "shared": "False"})
    assert [d["name"] for d in exact] == ["street"]
    prefix = api("GET", "/v1/datasets/query/name/street", params={"exact": "False"})
    assert [d["name"] for d in prefix] == ["street scenes", "street"]
    assert api("GET", "/v1/datasets/query/name/nobody") == []
    assert api("GET", "/v1/datasets/query/name/a%2Fb") == []


def test_dataset_pages_are_counted_in_items(api):
    for index in range(5):
        api.create_dataset(f"number {index}")
    pages = [
        [d["name"] for d in api("GET", "/v1/datasets", params={"pageSize": 2, "pageOffset": offset})]
        for offset in (0, 2, 4, 5)
    ]
    assert pages == [["number 0", "number 1"], ["number 2", "number 3"], ["number 4"], []]


def test_taken_dataset_name_is_refused(api):
    api.create_dataset("pictures")
    api.refused("POST", "/v1/datasets", 409, "DATASET_NAME_EXISTS", json={"name": "pictures"})


@pytest.mark.parametrize("name", ["ab", "-abc", "a/b", "abc\n", "äöü", ""])
def test_name_that_the_strict_client_cannot_read_is_refused(light_api, name):
    light_api.refused("POST", "/v1/datasets", 422, "MALFORMED_REQUEST", json={"name": name})
    assert light_api("GET", "/v1/datasets") == []


def test_dataset_rename_and_delete(api):
    dataset = api.create_dataset()
    api("PUT", dataset, json={"name": "renamed"})
    assert api("GET", dataset)["name"] == "renamed"
    # 1.2.x sends {} with DELETE.
    api("DELETE", dataset, json={})
    api.refused("GET", dataset, 404, "DATASET_UNKNOWN")
    assert api("GET", "/v1/datasets") == []


def test_enriched_datasets_have_counts(api):
    dataset = api.create_dataset()
    api.create_samples(dataset, ["a.jpg"])
    api.create_initial_tag(dataset)
    (enriched,) = api("GET", "/v1/datasets/enriched", params={"limit": 1})
    assert (enriched["nSamples"], enriched["nTags"], enriched["nEmbeddings"]) == (1, 1, 0)


def test_announced_upload_beyond_the_quota_is_refused(build_server, database_url):
    from tests.integration.platform.caller import Caller
    from tests.integration.platform.conftest import TOKEN

    with Caller(build_server(database_url=database_url, max_samples=2).url, TOKEN) as api:
        dataset = api.create_dataset()
        body = {"total": 3, "processed": 0, "uploadMethod": "USER_PIP", "isRegistered": True}
        api.refused("PUT", f"{dataset}/registerDatasetUpload", 403, "DATASET_AT_MAX_CAPACITY", json=body)
        api("PUT", f"{dataset}/registerDatasetUpload", json={**body, "total": 2})
        api.create_samples(dataset, ["a.jpg", "b.jpg"])
        api.refused("POST", f"{dataset}/samples", 422, "DATASET_AT_MAX_CAPACITY", json={"fileName": "c.jpg"})
        api.create_samples(dataset, ["b.jpg"])


def test_metadata_configurations_of_a_user_and_of_a_dataset(api):
    dataset = api.create_dataset()
    entry = {
        "name": "Weather",
        "path": "weather.kind",
        "defaultValue": None,
        "valueDataType": "CATEGORICAL_STRING",
    }
    own = api("POST", "/v1/configuration/metadata", 201, json={"name": "mine", "configs": [entry]})["id"]
    api("PUT", f"{dataset}/setMetaDataConfiguration", json={"id": own})
    assert api("GET", dataset)["metaDataConfigurationId"] == own
    path = f"{dataset}/configuration/metadata"
    of_dataset = api("POST", path, 201, json={"name": "its", "configs": [entry]})["id"]
    api("PUT", f"{path}/{of_dataset}", json={"name": "new", "configs": []})
    assert [c["name"] for c in api("GET", path)] == ["new"]
    assert api("GET", f"/v1/configuration/metadata/{own}")["configs"] == [entry]
    api.refused("GET", f"{path}/{own}", 404, "METADATA_CONFIGURATION_UNKNOWN")
