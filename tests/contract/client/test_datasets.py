from __future__ import annotations

import uuid

import pytest

from tests.contract.client.conftest import build_client
from watcher.lightly import (
    ApiException,
    ApiWorkflowClient,
    DatasetDoesNotExistError,
    DatasetError,
    NotFoundException,
    datasets,
)


def test_create_dataset_makes_and_chooses_it(client):
    name = datasets.fetch_dataset(client.transport, dataset_id=client.dataset_id).name
    other = build_client(client.transport.server, client.token)
    other.set_dataset_id_by_name(name)
    assert other.dataset_id == client.dataset_id


def test_create_dataset_of_a_present_empty_one_chooses_it_silently(client):
    name = datasets.fetch_dataset(client.transport, dataset_id=client.dataset_id).name
    other = build_client(client.transport.server, client.token)
    other.create_dataset(name)
    assert other.dataset_id == client.dataset_id


@pytest.mark.parametrize("name", ["", "ab", " abc", "a/b", "_ab", "abc\n", "ä b c"])
def test_create_dataset_refuses_names_that_cannot_be_one(client, name):
    with pytest.raises(DatasetError, match="cannot be the name"):
        client.create_dataset(name)


def test_create_new_dataset_with_unique_name_counts_up(client):
    base = f"unique {uuid.uuid4().hex}"
    other = build_client(client.transport.server, client.token)
    made = []
    for _ in range(3):
        other.create_new_dataset_with_unique_name(base)
        made.append(other.dataset_id)
    names = [datasets.fetch_dataset(client.transport, dataset_id=one).name for one in made]
    assert names == [base, f"{base}_1", f"{base}_2"]
    for one in made:
        other.delete_dataset_by_id(one)


def test_set_dataset_id_by_name_unknown_is_value_error(client):
    with pytest.raises(ValueError, match="no dataset") as caught:
        client.set_dataset_id_by_name(f"nothing {uuid.uuid4().hex}")
    assert isinstance(caught.value, DatasetDoesNotExistError)


def test_dataset_type_is_images(client):
    assert client.dataset_type == "Images"


def test_dataset_type_of_a_gone_dataset_is_not_found(client):
    client.dataset_id = "0" * 24
    with pytest.raises(NotFoundException):
        _ = client.dataset_type


def test_delete_dataset_by_id_deletes(client):
    dataset_id = client.dataset_id
    client.delete_dataset_by_id(dataset_id)
    with pytest.raises(ApiException) as caught:
        datasets.fetch_dataset(client.transport, dataset_id=dataset_id)
    assert caught.value.status == 404


def test_wrong_token_is_unauthorized(client):
    stranger = build_client(client.transport.server, "wrong-token-0000")
    with pytest.raises(ApiException) as caught:
        stranger.set_dataset_id_by_name("whatever")
    assert caught.value.status in (401, 403)


def test_check_version_compatibility_passes(client):
    client.check_version_compatibility()


def test_client_reads_its_variables(client, monkeypatch):
    monkeypatch.setenv("LIGHTLY_TOKEN", client.token)
    monkeypatch.setenv("LIGHTLY_SERVER_LOCATION", client.transport.server + "/")
    other = ApiWorkflowClient(dataset_id=client.dataset_id)
    assert other.dataset_type == "Images"
    other.transport.close()
