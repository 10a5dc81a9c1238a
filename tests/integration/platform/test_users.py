"""Users as the operator manages them, and a backup that is restored."""

from __future__ import annotations

import shutil
import sqlite3

import pytest
import requests

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_samples import WEBP
from tests.integration.platform.test_samplings import prepare, start
from watcher.domain.errors import ConfigError
from watcher.platform import users


def test_user_is_added_listed_renewed_and_removed(server):
    platform = server.platform
    token = users.add_user(platform, name="ann", max_datasets=2)
    assert [user.name for user in users.list_users(platform)] == ["ann", "owner"]
    with pytest.raises(ConfigError, match="already"):
        users.add_user(platform, name="ann")
    with Caller(server.url, token) as ann:
        dataset = ann.create_dataset()
    with pytest.raises(ConfigError, match="owns"):
        users.remove_user(platform, name="ann")
    renewed = users.renew_token(platform, name="ann")
    platform.users.clear()  # what five seconds do
    assert requests.get(server.url + dataset, params={"token": token}, timeout=5).status_code == 401
    with Caller(server.url, renewed) as ann:
        ann("DELETE", dataset)
    users.remove_user(platform, name="ann")
    for command in (users.remove_user, users.renew_token):
        with pytest.raises(ConfigError, match="no user"):
            command(platform, name="ann")


def test_dataset_is_shared_and_taken_back(server, api):
    token = users.add_user(server.platform, name="ann")
    dataset = api.create_dataset()
    with Caller(server.url, token) as ann:
        ann.refused("GET", dataset, 404, "DATASET_UNKNOWN")
        users.share_dataset(server.platform, dataset_id=dataset[-24:], name="ann")
        users.share_dataset(server.platform, dataset_id=dataset[-24:], name="ann")
        ann.create_samples(dataset, ["a.jpg"])
        users.share_dataset(server.platform, dataset_id=dataset[-24:], name="ann", shared=False)
        ann.refused("GET", dataset, 404, "DATASET_UNKNOWN")


def test_user_who_worked_at_datasets_of_others_can_be_removed(build_server, database_url):
    """Jobs and configurations once kept a user for ever, and the reason told was datasets that were not there."""
    server = build_server(database_url=database_url, work=False)
    token = users.add_user(server.platform, name="ann")
    with Caller(server.url, TOKEN) as api, Caller(server.url, token) as ann:
        dataset, _initial, embedding = prepare(api)
        users.share_dataset(server.platform, dataset_id=dataset[-24:], name="ann")
        job = start(ann, dataset, embedding, "picked")["jobId"]
        body = {"name": "columns", "configs": []}
        path = f"{dataset}/configuration/metadata"
        theirs = ann("POST", path, 201, json=body)["id"]
        own = ann("POST", "/v1/configuration/metadata", 201, json=body)["id"]
        ann("PUT", f"{dataset}/setMetaDataConfiguration", json={"id": own})
        kept = ann.create_dataset("mine")
        with pytest.raises(ConfigError, match="'ann' still owns 1 datasets: delete them first"):
            users.remove_user(server.platform, name="ann")
        assert ann("GET", f"/v1/jobs/{job}")["status"] == "WAITING"
        ann("DELETE", kept)
        users.remove_user(server.platform, name="ann")
        assert [each["id"] for each in api("GET", path)] == [theirs]
        assert "metaDataConfigurationId" not in api("GET", dataset)
        # The name of the tag that the job would have made is free.
        start(api, dataset, embedding, "picked")


def test_owner_shares_a_dataset_by_names_and_nobody_else_does(server, api):
    tokens = {name: users.add_user(server.platform, name=name) for name in ("ann", "bob")}
    dataset = api.create_dataset()
    path = f"{dataset}/collaboration/access"
    body = {"accessType": "WRITE", "users": ["ann", "owner", "ann"], "creator": "USER_PIP"}
    assert api("POST", path, 201, json=body) == {"id": dataset[-24:]}
    (shared,) = api("GET", path)
    assert (shared["users"], shared["owner"]) == (["ann"], api("GET", dataset)["userId"])
    with Caller(server.url, tokens["ann"]) as ann, Caller(server.url, tokens["bob"]) as bob:
        assert ann("GET", path)[0]["users"] == ["ann"]
        for method, address in (("POST", path), ("DELETE", f"{path}/{dataset[-24:]}")):
            ann.refused(method, address, 403, "FORBIDDEN", json=body)
            bob.refused(method, address, 404, "DATASET_UNKNOWN", json=body)
        for refused in ({"users": ["bob", "nobody"]}, {"users": ["b\0b"]}, {"teams": ["all"]}):
            api("POST", path, 422, json={"accessType": "WRITE", **refused})
        bob.refused("GET", path, 404, "DATASET_UNKNOWN")
        # Those and no others.
        api("POST", path, 201, json={**body, "users": ["bob"]})
        ann.refused("GET", dataset, 404, "DATASET_UNKNOWN")
        assert bob("GET", "/v1/datasets", params={"shared": True})[0]["id"] == dataset[-24:]
        api("DELETE", f"{path}/{'0' * 24}", 404)
        api("DELETE", f"{path}/{dataset[-24:]}", json={})
        bob.refused("GET", dataset, 404, "DATASET_UNKNOWN")
    assert api("GET", path) == []


def test_backup_of_a_running_platform_is_restored_elsewhere(build_server, tmp_path):
    server = build_server()
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        (sample,) = api.create_samples(dataset, ["a.jpg"])
        url = api("GET", f"{dataset}/samples/{sample}/writeurl", params={"isThumbnail": "true"})
        requests.put(url, data=WEBP, timeout=5)
        # As docs/platform.md says: the database first, then key and blobs, the platform running.
        data, backup = tmp_path / "data", tmp_path / "backup"
        backup.mkdir()
        with (
            sqlite3.connect(data / "platform.sqlite") as live,
            sqlite3.connect(backup / "platform.sqlite") as copy,
        ):
            live.backup(copy)
        live.close()
        copy.close()
        shutil.copy2(data / "platform.key", backup)
        shutil.copytree(data / "blobs", backup / "blobs")
        api.create_samples(dataset, ["after the backup.jpg"])
    server.stop()
    with Caller(build_server(data_dir=backup).url, TOKEN) as api:
        assert api("GET", f"{dataset}/mappings", params={"field": "fileName"}) == ["a.jpg"]
        url = api("GET", f"{dataset}/samples/{sample}/readurl", params={"type": "thumbnail"})
        assert requests.get(url, timeout=5).content == WEBP
