"""Tokens, users, forms of requests, limits."""

from __future__ import annotations

import re
import socket
from types import SimpleNamespace

import pytest
import requests
from structlog.contextvars import get_contextvars

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from watcher.platform import app
from watcher.platform.recent import Recent
from watcher.platform.secrets import new_id
from watcher.platform.store import users as user_store


def add_user(server, name: str, token: str, **limits) -> str:
    platform = server.platform
    user_id = new_id(0)
    with platform.database.write() as session:
        user_store.insert_user(
            session,
            user_id=user_id,
            name=name,
            token_hash=platform.keys.hash_token(token).hash,
            token_key=platform.keys.ids[0],
            now_ms=0,
            **limits,
        )
    return user_id


@pytest.mark.parametrize("token", [None, "", "wrong-token", "x" * 5000, "\ud800"])
def test_call_without_a_known_token_is_refused(light_api, token):
    query = {} if token is None else {"token": token.encode("utf-8", "surrogatepass")}
    answer = requests.get(f"{light_api.url}/v1/datasets", params=query, timeout=5)
    assert answer.status_code == 401
    assert answer.json()["code"] == "UNAUTHORIZED"


def test_token_is_taken_from_the_header_too(api):
    answer = requests.get(f"{api.url}/v1/datasets", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5)
    assert answer.status_code == 200


def test_user_sees_only_what_is_theirs_or_shared(server, api):
    other_id = add_user(server, "other", "token-of-the-other")
    dataset = api.create_dataset()
    (sample,) = api.create_samples(dataset, ["a.jpg"])
    with Caller(server.url, "token-of-the-other") as other:
        assert other("GET", "/v1/datasets") == []
        for method, path in (
            ("GET", dataset),
            ("DELETE", dataset),
            ("GET", f"{dataset}/tags"),
            ("GET", f"{dataset}/samples/{sample}"),
            ("GET", f"{dataset}/datasource/list"),
            ("GET", f"{dataset}/embeddings/writeCSVUrl"),
        ):
            other.refused(method, path, 404, "DATASET_UNKNOWN")
        own = other.create_dataset("pictures")  # the same name, for another user
        other.refused("GET", f"{own}/samples/{sample}", 404, "SAMPLE_UNKNOWN")

        with server.platform.database.write() as session:
            user_store.insert_share(session, dataset_id=dataset.rpartition("/")[2], user_id=other_id)
        assert other("GET", dataset)["nSamples"] == 1
        assert [d["id"] for d in other("GET", "/v1/datasets", params={"shared": "True"})] == [dataset[-24:]]
        assert [d["id"] for d in other("GET", "/v1/datasets")] == [own[-24:]]
        other.refused("DELETE", dataset, 403, "FORBIDDEN")


def test_user_with_a_limit_of_datasets(server):
    add_user(server, "small", "token-of-the-small", max_datasets=1, max_samples=7)
    with Caller(server.url, "token-of-the-small") as small:
        assert small("GET", "/v1/quota") == "7"
        small.create_dataset()
        small.refused("POST", "/v1/datasets", 403, "FORBIDDEN", json={"name": "another"})


def test_tokens_are_kept_hashed(server, api, tmp_path):
    api.create_dataset()
    with server.platform.database.read() as session:
        rows = session.connection().exec_driver_sql("SELECT * FROM platform_users").fetchall()
    assert rows
    assert TOKEN not in str(rows)


def test_slashes_at_the_start_and_odd_headers_are_accepted(api):
    api.create_dataset()
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    for path in ("//v1/datasets", "///v1/datasets"):
        answer = requests.request(
            "GET", api.url + path, params={"token": TOKEN}, headers=headers, data="{}", timeout=5
        )
        assert len(answer.json()) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"name": 3}',
        b'{"name": "a\xff"}',
        b'{"name": "\\ud800aa"}',
        b"[" * 100_000,
    ],
)
def test_malformed_body_is_refused(light_api, body):
    answer = light_api.request("POST", "/v1/datasets", data=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "MALFORMED_REQUEST")


@pytest.mark.parametrize("value", ["-1", "1.5", "x", "", "9" * 30, "\N{FULLWIDTH DIGIT ONE}"])
def test_malformed_number_in_a_query_is_refused(light_api, value):
    dataset = light_api.create_dataset()
    light_api.set_local(dataset)
    light_api.refused("GET", f"{dataset}/datasource/list", 422, "MALFORMED_REQUEST", params={"from": value})


@pytest.mark.parametrize("bad", ["x", "0" * 23, "A" * 24, "0" * 25, "%00" * 24, "..%2f..%2fetc"])
def test_malformed_id_is_unknown(light_api, bad):
    answer = light_api.request("GET", f"/v1/datasets/{bad}/tags")
    assert answer.status_code == 404


def test_unknown_path_and_method_answer_in_the_error_form(light_api):
    for method, path, status in (("GET", "/v1/nothing", 404), ("PATCH", "/v1/datasets", 405)):
        answer = light_api.request(method, path)
        assert answer.status_code == status
        assert set(answer.json()) == {"code", "error", "message"}
        assert "/openapi.json lists" in answer.json()["error"]


def test_body_beyond_the_limit_is_refused_before_it_is_read(build_server):
    with Caller(build_server(max_body_bytes=1000).url, TOKEN) as api:
        api.refused("POST", "/v1/datasets", 413, "PAYLOAD_TOO_LARGE", data=b" " * 1001)
        # Without an announced length as well.
        api.refused("POST", "/v1/datasets", 413, "PAYLOAD_TOO_LARGE", data=iter([b" " * 600] * 2))


def test_body_that_stops_coming_is_given_up(build_server):
    server = build_server(request_timeout_s=0.3)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/datasets?token={TOKEN} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{{".encode()
        )
        answer = connection.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 408 ")
    with Caller(server.url, TOKEN) as api:
        assert api("GET", "/v1/datasets") == []


def test_request_has_the_callers_id_or_a_fresh_one_in_the_answer(light_api):
    answer = light_api.request("GET", "/v1/datasets", headers={"X-Request-Id": "poll-7.a_b"})
    assert answer.headers["X-Request-Id"] == "poll-7.a_b"
    refused = light_api.request("GET", "/v1/nowhere", headers={"X-Request-Id": "two words"})
    assert re.fullmatch("[0-9a-f]{16}", refused.headers["X-Request-Id"])
    assert light_api.request("GET", "/v1/datasets").headers["X-Request-Id"] != refused.headers["X-Request-Id"]


def test_log_line_of_a_request_names_it(light_api, monkeypatch):
    told = []
    monkeypatch.setattr(
        app, "_log", SimpleNamespace(error=lambda event, **_: told.append((event, get_contextvars())))
    )
    monkeypatch.setattr(Recent, "find", lambda *_: 1 / 0)
    answer = light_api.request("GET", "/v1/datasets", headers={"X-Request-Id": "poll-8"})
    assert (answer.status_code, answer.headers["X-Request-Id"]) == (500, "poll-8")
    assert told == [("platform.request_crashed", {"request_id": "poll-8"})]
