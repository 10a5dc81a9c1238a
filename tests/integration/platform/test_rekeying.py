"""A key that changes: what hung on the old one is good as long as that is listed, and moves to the new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests
from sqlalchemy import select

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_datasources import put
from watcher.domain.errors import ConfigError
from watcher.platform import users
from watcher.platform.faults import Fault
from watcher.platform.secrets import KEY_FILE, Keys, read_configured_keys
from watcher.platform.server import PlatformServer
from watcher.platform.store import datasources as datasource_store
from watcher.platform.store.tables import datasources
from watcher.platform.vault import Vault

OLD, NEW, OTHER = "0a" * 32, "1b" * 32, "2c" * 32
S3 = {
    "type": "S3",
    "fullPath": "s3://pictures",
    "purpose": "LIGHTLY",
    "s3Region": "eu-central-1",
    "s3AccessKeyId": "id",
    "s3SecretAccessKey": "the-s3cret-of-a-bucket",
}


@pytest.fixture
def server(build_server, database_url: str):
    made = build_server(database_url=database_url, key=OLD, page_size=1)
    yield made
    made.stop(5.0)


def load_secrets(server: PlatformServer) -> str:
    with server.platform.database.read() as session:
        return session.scalar(select(datasources.c.secrets).where(datasources.c.secrets.is_not(None)))


def can_read(server: PlatformServer, key: str) -> bool:
    return Vault(read_configured_keys(key)).is_readable(load_secrets(server))


def ask(url: str) -> int:
    return requests.get(url, timeout=5, allow_redirects=False).status_code


def test_all_that_hung_on_the_old_key_lives_as_long_as_that_is_listed(server, api, root: Path, capsys):
    put(root / "in", "a.jpg", 1)
    put(root / "in", "b.jpg", 2)
    dataset = api.create_dataset()
    api.set_local(dataset, "in")
    api("PUT", f"{dataset}/datasource", json=S3)
    page = api("GET", f"{dataset}/datasource/list")
    redirect = api("GET", f"{dataset}/datasource/list", params={"useRedirectedReadUrl": "true"})["data"][0]
    read_urls = [page["data"][0]["readUrl"], redirect["readUrl"]]
    rest = {"cursor": page["cursor"]}
    seldom, often = (users.add_user(server.platform, name=name) for name in ("ann", "bob"))
    with requests.Session() as browser:
        browser.post(f"{server.url}/login", data={"token": TOKEN}, timeout=5)

        def is_all_good() -> bool:
            answers = [ask(url) for url in read_urls]
            listed = api("GET", f"{dataset}/datasource/list", params=rest)["data"]
            shown = browser.get(f"{server.url}/", timeout=5, allow_redirects=False)
            return answers == [200, 302] and listed[0]["fileName"] == "b.jpg" and shown.status_code == 200

        assert is_all_good()
        server.replace_keys(f"{NEW}\n{OLD}")
        assert is_all_good()
    assert can_read(server, NEW)
    assert not can_read(server, OLD)
    with Caller(server.url, often) as bob:
        assert bob("GET", "/v1/datasets") == []
    by_name = {user.name: user.token_key for user in users.list_users(server.platform)}
    old_id, new_id = read_configured_keys(OLD).ids[0], read_configured_keys(NEW).ids[0]
    assert by_name == {"ann": old_id, "bob": new_id, "owner": new_id}
    capsys.readouterr()
    server.replace_keys(NEW)
    assert "tokens.ended" in (told := "".join(capsys.readouterr()))
    assert "ann" in told
    assert "owner" not in told
    assert [ask(url) for url in read_urls] == [403, 403]
    api.refused("GET", f"{dataset}/datasource/list", 422, "MALFORMED_REQUEST", params=rest)
    page = api("GET", f"{dataset}/datasource/list")
    assert ask(page["data"][0]["readUrl"]) == 200
    tokens = [TOKEN, often, seldom]
    codes = [requests.get(f"{server.url}/v1/datasets", params={"token": t}, timeout=5) for t in tokens]
    assert [answer.status_code for answer in codes] == [200, 200, 401]
    with Caller(server.url, users.renew_token(server.platform, name="ann")) as ann:
        assert ann("GET", "/v1/datasets") == []


@pytest.mark.parametrize("text", ["", "zz" * 32, OLD[:-2], f"{NEW}\n{OLD[:-2]}", NEW, f"{NEW} {OTHER}"])
def test_list_that_is_damaged_or_leaves_the_key_in_use_out_changes_nothing(build_server, text):
    server = build_server(key=OLD)
    with pytest.raises(ConfigError) as refused:
        server.replace_keys(text)
    assert server.platform.keys.ids == Keys(bytes.fromhex(OLD)).ids
    for key in (OLD, NEW):
        assert key[:8] not in str(refused.value)


def test_old_key_cannot_go_while_credentials_of_another_replica_hang_on_it(server, api):
    dataset = api.create_dataset()
    api("PUT", f"{dataset}/datasource", json=S3)
    server.replace_keys(f"{NEW}\n{OLD}")
    late = Vault(read_configured_keys(OLD)).lock(b"{}")  # one that has not taken up the new key yet
    with server.platform.database.write() as session:
        (row,) = datasource_store.load_locked(session, after_id="", limit=10)
        datasource_store.replace_secrets(session, datasource_id=row.id, secrets=late, instead_of=row.secrets)
    with pytest.raises(ConfigError, match="1 datasources"):
        server.replace_keys(NEW)
    assert server.platform.vault.unlock(late) == b"{}"
    server.replace_keys(f"{NEW}\n{OLD}\n{OTHER}")
    server.replace_keys(NEW)
    assert server.platform.vault.unlock(load_secrets(server)) == b"{}"


def test_start_with_two_keys_moves_what_the_old_one_encrypted(build_server):
    first = build_server(key=OLD)
    with Caller(first.url, TOKEN) as api:
        api("PUT", f"{api.create_dataset()}/datasource", json=S3)
    first.stop(5.0)
    second = build_server(key=f"{NEW}\n{OLD}")
    assert can_read(second, NEW)
    second.stop(5.0)
    third = build_server(key=OTHER)  # nothing can be done about it, and it is not hidden
    with pytest.raises(Fault, match="cannot be read with the present key"):
        third.platform.vault.unlock(load_secrets(third))


def test_key_file_with_a_new_line_on_top_is_taken_up(build_server, tmp_path: Path):
    server = build_server()
    path = tmp_path / "data" / KEY_FILE
    old = path.read_text()
    assert server.key_file == path
    path.write_text(f"{NEW}\n{old}")
    server.reload_key_file()
    assert server.platform.keys.ids == read_configured_keys(f"{NEW}\n{old}").ids
    with Caller(server.url, TOKEN) as api:
        assert api("GET", "/v1/datasets") == []
