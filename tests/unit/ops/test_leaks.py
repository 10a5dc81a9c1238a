"""The searcher for secrets in the output of processes finds what it should, and nothing else."""

from __future__ import annotations

import json

import pytest
import requests

from tests.leaks import OUTPUTS, Outputs, find_leaks
from tests.unit.lightly.servers import Reply, serve


@pytest.mark.parametrize(
    "line",
    [
        "GET http://127.0.0.1:1/v1/datasets?token=abcdefgh1234",
        "http://127.0.0.1:1/files/a.jpg?e=17&s=b6e51df73aa01",
        "https://b.s3.amazonaws.com/a?X-Amz-Date=1&X-Amz-Signature=0123456789abcdef",
        "https://h/a?next=https%3A%2F%2Fh%3Fsig=0123456789",
        "<img src='https://h/a?e=17&amp;s=b6e51df73aa01'>",
        "https://h/a?e=17\\u0026s=b6e51df73aa01",
        "Authorization: Bearer abcdefgh1234",
        "the token is my-own-token",
    ],
)
def test_secret_in_a_line_is_found(line):
    assert find_leaks(f'{{"event": "{line}"}}', secrets=["my-own-token"])


@pytest.mark.parametrize(
    "line",
    [
        "http://127.0.0.1:1/v1/datasets?***",
        "http://127.0.0.1:1/v1/datasets?token=***",
        "the server refuses the token: check LIGHTLY_TOKEN",
        "Authorization: Bearer ***",
        "sig=short",
    ],
)
def test_line_without_a_secret_is_left_alone(line):
    assert find_leaks(line, secrets=["my-own-token", "short"]) == []


def test_output_of_a_process_is_searched_for_its_own_secrets_even_after_its_folder_is_gone(tmp_path):
    outputs = Outputs()
    (tmp_path / "secret").write_text("fr0m-a-file\n")
    environ = {
        "LIGHTLY_TOKEN": "fr0m-the-environment",
        "WATCHER_X__SECRET_FILE": str(tmp_path / "secret"),
        "WATCHER_DATA_DIR": str(tmp_path / "data"),
    }
    log = tmp_path / "log"
    outputs.watch(log, environ=environ, arguments=["platform", "--token", "fr0m-an-option"])
    outputs.watch(log, environ=environ)  # started again
    log.write_text("nothing of interest\n")
    assert outputs.take() == []
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "control.json").write_text('{"token": "made-by-itself"}')
    words = ("fr0m-the-environment", "fr0m-a-file", "fr0m-an-option", "made-by-itself")
    with log.open("a") as file:
        file.writelines(f"oh: {word}\n" for word in words)
    log.unlink()
    found = outputs.take()
    assert len(found) == len(words)
    assert all(any(word in leak for leak in found) for word in words)
    assert outputs.take() == []


@pytest.mark.parametrize(
    "path", ["/metrics", "/", "/api/v1/status", "/watches/gate", "/health/ready", "/log"]
)
def test_page_that_shows_a_signature_is_found_and_an_answer_of_the_protocol_is_let_pass(path):
    signed = "https://bucket.example.com/a.jpg?X-Amz-Signature=0123456789abcdef"
    outputs = Outputs()
    with serve(lambda _seen: Reply(body={"url": signed})) as server, requests.Session() as session:
        session.trust_env = False
        for asked in (path, "/v1/datasets/1/samples"):
            outputs.search_answer(session.get(server.url + asked, timeout=10))
    (found,) = outputs.take()
    assert found.startswith(f"GET {path}: ")
    OUTPUTS.take()  # what this test showed on purpose


THUMBNAIL = f"{'0a' * 12}/thumb/0a/{'0a' * 12}?e=1700000000&amp;s={'0b' * 16}"


@pytest.mark.parametrize(
    ("path", "body", "is_leak"),
    [
        ("/v1/datasets/1/samples/2/readurl", "http://h/files/a.jpg?e=17&s=b6e51df73aa01", False),
        ("/v1/datasets/1/datasource", '{"s3SecretAccessKey": "kn0wn-secret"}', True),
        ("/openapi.json", "kn0wn-secret", True),
        ("/pages/datasets/1/tags/2", f'<img src="/blobs/{THUMBNAIL}">', False),
        ("/pages/datasets/1/tags/2", f'<img src="http://other/blobs/{THUMBNAIL}">', True),
        ("/pages/datasets/1/tags/2", '<img src="http://h:1/files/1/a.jpg?e=17&s=b6e51df73aa01">', True),
        ("/pages/datasets/1", '<img src="https://b/a?X-Amz-Signature=0123456789abcdef">', True),
        ("/pages/jobs", "kn0wn-secret", True),
        ("/watches/gate", f'<img src="/blobs/{THUMBNAIL}">', True),
    ],
)
def test_body_of_a_platform_may_hold_no_secret_and_a_page_no_signature_but_of_its_own_thumbnails(
    tmp_path, path, body, is_leak
):
    entry = {
        "request": {"url": f"http://h:1{path}", "method": "GET"},
        "response": {"content": {"mimeType": "text/html; charset=utf-8", "text": body}},
    }
    recording = tmp_path / "0.har"
    recording.write_text(json.dumps({"log": {"entries": [entry]}}))
    outputs = Outputs()
    outputs.know("kn0wn-secret")
    outputs.search_body(body, url=f"http://h:1{path}")
    assert bool(outputs.take()) is is_leak
    outputs.search_recording(recording)
    assert bool(outputs.take()) is is_leak
