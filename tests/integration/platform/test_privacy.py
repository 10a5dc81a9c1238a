"""What a user of the API must not reach: the server's own data, and what belongs to others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_datasources import list_all, put
from tests.leaks import OUTPUTS
from watcher.platform import users
from watcher.platform.pages.session import COOKIE
from watcher.platform.server import PlatformServer

SECRET = b"what nobody may read"


@pytest.fixture
def crowded(build_server, root) -> Iterator[Caller]:
    """A platform whose data lies below the root, beside files of its operator."""
    put(root / "in", "a.jpg", 1)
    (root / "statement.key").write_bytes(SECRET)
    with Caller(build_server(data_dir=root / "state").url, TOKEN) as api:
        yield api


@pytest.mark.parametrize("path", ["state", "state/blobs", "", "."])
def test_folder_that_holds_the_servers_own_data_is_no_datasource(crowded, root, path):
    dataset = crowded.create_dataset()
    crowded.set_local(dataset, path)
    (sample,) = crowded.create_samples(dataset, ["platform.key" if path == "state" else "state/platform.key"])
    for asked in ("datasource/list", "datasource/verify", f"samples/{sample}/readurl?type=full"):
        crowded.refused("GET", f"{dataset}/{asked}", 422, "DATASET_DATASOURCE_INVALID")
    redirect = crowded.request("GET", f"{dataset}/samples/{sample}/readurlRedirect", params={"type": "full"})
    assert redirect.status_code >= 400
    assert (root / "state" / "platform.key").read_bytes().strip() not in redirect.content
    assert not (root / path / ".lightly").exists()


def test_links_to_the_servers_own_data_are_neither_listed_nor_read(crowded, root):
    (root / "in" / "key.jpg").symlink_to(root / "state" / "platform.key")
    (root / "in" / "operator.jpg").symlink_to(root / "statement.key")
    (root / "in" / "fine.jpg").symlink_to(root / "in" / "a.jpg")
    dataset = crowded.create_dataset()
    crowded.set_local(dataset)
    assert list_all(crowded, dataset) == ["a.jpg", "fine.jpg"]
    for name in ("key.jpg", "operator.jpg"):
        (sample,) = crowded.create_samples(dataset, [name])
        crowded.refused("GET", f"{dataset}/samples/{sample}/readurl?type=full", 404, "NOT_FOUND")
        crowded.refused("GET", f"{dataset}/samples/{sample}/readurlRedirect?type=full", 404, "NOT_FOUND")


def test_root_that_holds_nothing_of_the_server_is_a_datasource(light_api, root):
    put(root, "a.jpg", 5)
    dataset = light_api.create_dataset()
    light_api.set_local(dataset, "")
    assert list_all(light_api, dataset) == ["a.jpg"]


@pytest.fixture
def bob(server: PlatformServer) -> Iterator[Caller]:
    token = users.add_user(server.platform, name="bob")
    OUTPUTS.know(token)
    with Caller(server.url, token) as caller:
        yield caller


def test_folders_of_the_machine_are_the_first_users_and_others_have_one_of_their_own(api, bob, root):
    put(root / "in", "a.jpg", 1)
    put(root / "users" / "bob" / "cam", "b.jpg", 1)
    put(root / "users" / "bobby", "c.jpg", 1)
    dataset = bob.create_dataset()
    for path in ("in", "", "users", "users/bobby", "users/bob/../bobby"):
        code, kind = (422, "DATASET_DATASOURCE_INVALID") if ".." in path else (403, "FORBIDDEN")
        body = {"type": "LOCAL", "fullPath": path, "purpose": "INPUT_OUTPUT"}
        told = bob.refused("PUT", f"{dataset}/datasource", code, kind, json=body)
        assert kind != "FORBIDDEN" or "'users/bob'" in told
    for path, names in (("users/bob", ["cam/b.jpg"]), ("users/bob/cam", ["b.jpg"])):
        bob.set_local(dataset, path)
        assert list_all(bob, dataset) == names
    shared = api.create_dataset("shared")
    api.set_local(shared, "users")
    assert list_all(api, shared) == ["bob/cam/b.jpg", "bobby/c.jpg"]


def test_link_in_the_folder_of_a_user_leads_to_nothing_of_others(bob, root):
    put(root / "in", "a.jpg", 1)
    put(root / "users" / "bob", "b.jpg", 1)
    (root / "users" / "bob" / "link.jpg").symlink_to(root / "in" / "a.jpg")
    dataset = bob.create_dataset()
    bob.set_local(dataset, "users/bob")
    assert list_all(bob, dataset) == ["b.jpg"]


def test_user_may_not_point_a_shared_dataset_at_a_folder_of_the_machine(server, api, bob):
    dataset = api.create_dataset()
    api.set_local(dataset)
    users.share_dataset(server.platform, dataset_id=dataset[-24:], name="bob")
    body = {"type": "LOCAL", "fullPath": "in", "purpose": "INPUT_OUTPUT"}
    bob.refused("PUT", f"{dataset}/datasource", 403, "FORBIDDEN", json=body)
    assert bob("GET", f"{dataset}/datasource")["fullPath"] == "in"


def test_datasource_that_is_put_back_without_its_secret_is_refused_and_stays(api):
    dataset = api.create_dataset()
    body = {
        "type": "S3",
        "fullPath": "s3://pictures",
        "purpose": "INPUT_OUTPUT",
        "s3Region": "eu-central-1",
        "s3AccessKeyId": "id",
        "s3SecretAccessKey": "the-s3cret-of-a-bucket",
    }
    api("PUT", f"{dataset}/datasource", json=body)
    given = api("GET", f"{dataset}/datasource")
    told = api.refused(
        "PUT",
        f"{dataset}/datasource",
        422,
        "DATASET_DATASOURCE_INVALID",
        json={**given, "fullPath": "s3://others"},
    )
    assert "s3SecretAccessKey" in told
    assert api("GET", f"{dataset}/datasource") == given


def test_limit_of_a_dataset_is_its_owners_whoever_adds(server, api, bob):
    users.set_limits(server.platform, name="bob", max_samples=2)
    small = bob.create_dataset("small")
    users.share_dataset(server.platform, dataset_id=small[-24:], name="owner")
    api.create_samples(small, ["a.jpg", "b.jpg"])
    api.refused("POST", f"{small}/samples", 422, "DATASET_AT_MAX_CAPACITY", json={"fileName": "c.jpg"})
    large = api.create_dataset("large")
    users.share_dataset(server.platform, dataset_id=large[-24:], name="bob")
    assert len(bob.create_samples(large, ["a.jpg", "b.jpg", "c.jpg"])) == 3


def log_in(server: PlatformServer, token: str) -> dict[str, str]:
    answer = requests.post(f"{server.url}/login", data={"token": token}, timeout=10, allow_redirects=False)
    assert answer.status_code == 303
    return {COOKIE: answer.cookies[COOKIE]}


def is_in(server: PlatformServer, cookies: dict[str, str]) -> bool:
    answer = requests.get(f"{server.url}/", cookies=cookies, timeout=10, allow_redirects=False)
    return answer.status_code == 200


def test_new_token_ends_the_sessions_of_browsers(build_server):
    now_s = 1_800_000_000.0

    class Clock:
        def now_s(self) -> float:
            return now_s

        def monotonic_s(self) -> float:
            return now_s

    server = build_server(clock=Clock())
    token = users.add_user(server.platform, name="bob")
    bob, owner = log_in(server, token), log_in(server, TOKEN)
    now_s += 10
    renewed = users.renew_token(server.platform, name="bob")
    OUTPUTS.know(token, renewed)
    assert not is_in(server, bob)
    assert is_in(server, owner)
    now_s += 10
    assert is_in(server, log_in(server, renewed))
    server.replace_token("another-token-of-the-first-user")
    assert not is_in(server, owner)
    now_s += 10
    assert is_in(server, log_in(server, "another-token-of-the-first-user"))
