"""`watcher platform users`, beside a platform that runs meanwhile."""

from __future__ import annotations

import json

import pytest
import requests

from tests.builders import run_command
from tests.integration.platform.caller import Caller


@pytest.fixture
def server(build_server, tmp_path):
    return build_server(data_dir=tmp_path / "watcher" / "platform", work=False)


@pytest.fixture
def command(tmp_path):
    def run(*arguments: str, code: int = 0):
        result = run_command("platform", "users", *arguments, WATCHER_DATA_DIR=str(tmp_path / "watcher"))
        assert result.exit_code == code, result.output
        return result

    return run


def test_added_user_works_with_the_token_that_is_shown_once(server, command, tmp_path):
    added = command("add", "ann", "--max-datasets", "1")
    token = added.stdout.strip()
    with Caller(server.url, token) as ann:
        ann.create_dataset("first")
        ann.refused("POST", "/v1/datasets", 403, "FORBIDDEN", json={"name": "second"})
    assert [
        (user["name"], user["max_datasets"]) for user in json.loads(command("list", "--json").stdout)
    ] == [
        ("ann", 1),
        ("owner", None),
    ]
    assert token not in command("list").output
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert token.encode() not in everything


def test_quota_is_raised_and_lifted(server, command):
    token = command("add", "ann", "--max-datasets", "1").stdout.strip()
    with Caller(server.url, token) as ann:
        ann.create_dataset("first")
        assert (
            "most datasets 2" in command("quota", "ann", "--max-datasets", "2", "--max-samples", "9").stdout
        )
        server.platform.users.clear()  # what five seconds do
        ann.create_dataset("second")
        assert ann("GET", "/v1/quota") == "9"
        assert "most samples 9, most datasets -" in command("quota", "ann", "--max-datasets", "0").stdout


def test_renewed_token_ends_the_old_one(server, command):
    old = command("add", "ann").stdout.strip()
    new = command("token", "ann").stdout.strip()
    codes = [
        requests.get(f"{server.url}/v1/datasets", params={"token": token}, timeout=5).status_code
        for token in (old, new)
    ]
    assert codes == [401, 200]


def test_dataset_is_shared_and_taken_back_by_command(server, command):
    with Caller(server.url, server.config.token) as owner:
        dataset = owner.create_dataset()
    with Caller(server.url, command("add", "ann").stdout.strip()) as ann:
        ann.refused("GET", dataset, 404, "DATASET_UNKNOWN")
        command("share", "ann", dataset[-24:])
        ann("GET", dataset)
        command("unshare", "ann", dataset[-24:])
        ann.refused("GET", dataset, 404, "DATASET_UNKNOWN")
    command("remove", "ann")
    assert "no user 'ann'" in command("remove", "ann", code=2).output


@pytest.mark.parametrize("verb", ["token", "remove"])
def test_first_user_is_not_changed_by_command(server, command, verb):
    assert "first user" in command(verb, "owner", code=2).output


def test_command_makes_no_platform_where_none_has_run(command, tmp_path):
    assert "no platform has run" in command("list", code=2).output
    assert not (tmp_path / "watcher" / "platform").exists()
