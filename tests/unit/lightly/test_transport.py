from __future__ import annotations

import logging
import pickle
import socket
import threading
import time
import traceback
from typing import Any

import pytest

from tests.unit.lightly.conftest import DATASET, TOKEN
from tests.unit.lightly.servers import Reply
from watcher.domain.backoff import Backoff
from watcher.domain.errors import (
    ApiException,
    CancelledError,
    ConfigError,
    NotFoundException,
    NotSentError,
    ProtocolError,
    ServiceException,
    TooManyRequestsException,
    TransportError,
    UnauthorizedException,
    UnknownOutcomeError,
)
from watcher.lightly import datasets, tags
from watcher.lightly.transport import RequestSeen, Transport
from watcher.lightly.wire.datasets import CreateEntityResponse
from watcher.lightly.wire.tags import TagData

TAGS = "/v1/datasets/{datasetId}/tags"


def _read_all(error: BaseException) -> str:
    return (
        "".join(traceback.format_exception(error))
        + repr(error)
        + str(error.__dict__)
        + repr(error.__context__)
    )


def _count(server: Any) -> int:
    return len(server.seen)


def test_get_json_sends_token_as_query_parameter_and_decodes(start, connect):
    server = start(lambda _seen: [])
    transport = connect(server.url + "//")
    assert transport.get_json(TAGS, type=list[TagData], path_params={"datasetId": DATASET}) == []
    (seen,) = server.seen
    assert seen.path == f"/v1/datasets/{DATASET}/tags"
    assert seen.query == {"token": TOKEN}
    assert "Authorization" not in seen.headers


def test_path_parts_are_percent_encoded_with_slash(start, connect):
    server = start(lambda _seen: [])
    datasets.fetch_datasets_by_name(connect(server.url), name="a/b c%2F+ü")
    assert server.seen[0].target.split("?")[0] == "/v1/datasets/query/name/a%2Fb%20c%252F%2B%C3%BC"
    with pytest.raises(ConfigError, match="datasetId"):
        tags.fetch_tags(connect(server.url), dataset_id="..")


def test_booleans_in_queries_have_capitals_and_absent_values_are_left_out(start, connect):
    server = start(lambda _seen: {"id": "1"})
    connect(server.url).get_json(
        "/x", type=CreateEntityResponse, query={"a": True, "b": None, "c": 5, "d": "x y&z"}
    )
    assert server.seen[0].query == {"a": "True", "c": "5", "d": "x y&z", "token": TOKEN}


def test_connections_are_reused(start, connect):
    server = start(lambda _seen: [])
    transport = connect(server.url)
    for _ in range(5):
        tags.fetch_tags(transport, dataset_id=DATASET)
    assert len({seen.client_port for seen in server.seen}) == 1


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(body=b"<html>login</html>", content_type="text/html"), "text/html"),
        (Reply(body=b'[{"id": "1"'), "does not follow"),
        (Reply(body=b'[{"id": "1"}]'), "missing required field"),
        (Reply(body=b""), "0 bytes"),
        (Reply(body=b'{"\xff": 1}'), "does not follow"),
    ],
)
def test_get_json_undecodable_answer_is_protocol_error_naming_endpoint(start, connect, reply, words):
    server = start(lambda _seen: reply)
    with pytest.raises(ProtocolError, match=words) as caught:
        connect(server.url).get_json(TAGS, type=list[TagData], path_params={"datasetId": DATASET})
    assert f"GET {TAGS}" in str(caught.value)
    assert _count(server) == 1


def test_get_json_unknown_fields_and_nulls_are_accepted(start, connect):
    data = {
        "id": "1", "datasetId": "2", "prevTagId": None, "name": "initial-tag", "bitMaskData": "0x1",
        "totSize": 1, "createdAt": 5, "queryTagId": None, "brandNew": {"x": []},
    }  # fmt: skip
    server = start(lambda _seen: [data])
    (tag,) = tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert tag.prev_tag_id is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, UnauthorizedException), (404, NotFoundException), (418, ApiException), (409, ApiException)],
)
def test_final_errors_are_raised_once_with_code_and_text(start, connect, status, kind):
    server = start(lambda _seen: Reply(status, {"code": "DATASET_UNKNOWN", "error": "no such dataset"}))
    with pytest.raises(kind) as caught:
        tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    error = caught.value
    assert (error.status, error.code, error.body) == (status, "DATASET_UNKNOWN", "no such dataset")
    assert error.request == f"GET {TAGS}"
    assert _count(server) == 1


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[1]", b"<html>", b'{"code": 5}', b'{"other": 1}', b"\xff\xfe"]
)
def test_error_bodies_of_any_kind_are_survived(start, connect, body):
    server = start(lambda _seen: Reply(400, body))
    with pytest.raises(ApiException) as caught:
        tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert caught.value.code is None


def test_error_text_is_capped_and_hides_token_and_signed_queries(start, connect):
    text = f"token {TOKEN} and http://store/x?X-Amz-Signature=abcdef " + "x" * 100_000
    server = start(lambda seen: Reply(400, {"code": "BAD_REQUEST", "message": text + seen.target}))
    with pytest.raises(ApiException) as caught:
        tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    everything = _read_all(caught.value)
    assert TOKEN not in everything
    assert "abcdef" not in everything
    assert len(caught.value.body) <= 2000


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_get_transient_status_is_repeated_until_it_succeeds(start, connect, status):
    replies = [Reply(status), Reply(status), []]
    server = start(lambda _seen: replies.pop(0))
    assert tags.fetch_tags(connect(server.url), dataset_id=DATASET) == []
    assert _count(server) == 3


def test_get_transient_status_is_given_up_after_the_last_try(start, connect):
    server = start(lambda _seen: Reply(503))
    with pytest.raises(ServiceException):
        tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert _count(server) == 3


@pytest.mark.parametrize(("status", "n_tries"), [(429, 3), (503, 3), (500, 1), (502, 1), (504, 1), (409, 1)])
def test_post_is_repeated_only_when_the_server_refused_to_begin(start, connect, status, n_tries):
    server = start(lambda _seen: Reply(status))
    with pytest.raises(ApiException):
        connect(server.url).send_json("POST", "/v1/datasets", type=CreateEntityResponse, body={})
    assert _count(server) == n_tries


@pytest.mark.scenario(number=41)
def test_retry_after_is_the_floor_of_the_wait(start, connect):
    replies = [Reply(429, headers={"Retry-After": "1"}), []]
    server = start(lambda _seen: replies.pop(0))
    begun = time.monotonic()
    tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert time.monotonic() - begun >= 1.0


@pytest.mark.parametrize("value", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
def test_retry_after_beyond_patience_ends_the_call_and_is_told(start, connect, value):
    server = start(lambda _seen: Reply(429, headers={"Retry-After": value}))
    with pytest.raises(TooManyRequestsException) as caught:
        tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert caught.value.retry_after_s >= 3600
    assert _count(server) == 1


@pytest.mark.parametrize("value", ["", "soon", "-5", "1e9", "9" * 30, "nan"])
def test_retry_after_nonsense_is_ignored(start, connect, value):
    replies = [Reply(503, headers={"Retry-After": value}), []]
    server = start(lambda _seen: replies.pop(0))
    assert tags.fetch_tags(connect(server.url), dataset_id=DATASET) == []


def test_unreachable_server_is_not_sent_and_names_no_secret(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotSentError, match="could not connect") as caught:
        connect(f"http://127.0.0.1:{port}").send_json("POST", "/v1/datasets", type=CreateEntityResponse)
    assert TOKEN not in _read_all(caught.value)
    assert caught.value.__context__ is None


def test_connection_cut_after_sending_post_is_unknown_outcome_and_not_repeated(start_raw, connect):
    n_requests = []

    def cut(_connection: socket.socket, _stop: threading.Event) -> None:
        n_requests.append(1)

    url = start_raw(cut)
    with pytest.raises(UnknownOutcomeError):
        connect(url).send_json("POST", "/v1/datasets", type=CreateEntityResponse, body={"name": "x"})
    assert len(n_requests) == 1


def test_connection_cut_on_get_is_repeated_then_transport_error(start_raw, connect):
    n_requests = []

    def cut(_connection: socket.socket, _stop: threading.Event) -> None:
        n_requests.append(1)

    url = start_raw(cut)
    with pytest.raises(TransportError) as caught:
        tags.fetch_tags(connect(url), dataset_id=DATASET)
    assert not isinstance(caught.value, UnknownOutcomeError)
    assert len(n_requests) == 3


_CUT = {"Content-Length": "99", "Connection": "close"}


@pytest.mark.parametrize("status", [200, 400, 404, 409, 503])
def test_body_shorter_than_announced_is_repeated(start, connect, status):
    replies = [Reply(status, body=b"[", headers=_CUT), []]
    server = start(lambda _seen: replies.pop(0))
    assert tags.fetch_tags(connect(server.url), dataset_id=DATASET) == []


def test_refusal_whose_code_broke_off_is_an_unknown_outcome_but_for_a_refused_token(start, connect):
    transport = connect(start(lambda _seen: Reply(400, body=b'{"code"', headers=_CUT)).url)
    with pytest.raises(UnknownOutcomeError):
        transport.send_json("POST", "/v1/datasets", type=CreateEntityResponse, body={"name": "x"})
    transport = connect(start(lambda _seen: Reply(401, body=b'{"code"', headers=_CUT)).url)
    with pytest.raises(UnauthorizedException):
        tags.fetch_tags(transport, dataset_id=DATASET)


@pytest.mark.scenario(number=17)
def test_silent_server_ends_by_the_read_time_limit(start_raw, connect):
    url = start_raw(lambda _connection, stop: stop.wait(60))
    transport = connect(url, read_timeout_s=0.2, retry=Backoff(max_attempts=1))
    begun = time.monotonic()
    with pytest.raises(UnknownOutcomeError, match=r"before the answer came: nothing came for 0\.2 s$"):
        transport.send("PUT", "/v1/x", body={})
    assert time.monotonic() - begun < 30


@pytest.mark.scenario(number=17)
@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-A: "]
)
def test_trickling_server_is_cut_at_the_deadline(start_raw, connect, head):
    def trickle(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(head)
        while not stop.wait(0.05):
            connection.sendall(b"x")

    url = start_raw(trickle)
    transport = connect(url, answer_timeout_s=0.5, retry=Backoff(max_attempts=1))
    begun = time.monotonic()
    with pytest.raises(TransportError):
        tags.fetch_tags(transport, dataset_id=DATASET)
    assert 0.4 < time.monotonic() - begun < 60


def test_garbage_instead_of_http_is_transport_error(start_raw, connect):
    url = start_raw(lambda connection, _stop: connection.sendall(b"SSH-2.0-OpenSSH\r\n"))
    with pytest.raises(TransportError):
        tags.fetch_tags(connect(url), dataset_id=DATASET)


def test_redirect_is_not_followed_and_names_the_host_without_query(start, connect):
    other = start(lambda _seen: [])
    server = start(lambda seen: Reply(302, headers={"Location": other.url + seen.target}))
    with pytest.raises(ProtocolError, match="redirects") as caught:
        tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert other.seen == []
    assert TOKEN not in _read_all(caught.value)
    assert other.url.removeprefix("http://") in str(caught.value)


def test_token_is_in_no_log_record_even_at_debug(start, connect, caplog):
    caplog.set_level(logging.DEBUG)
    server = start(lambda _seen: [])
    tags.fetch_tags(connect(server.url), dataset_id=DATASET)
    assert "/v1/datasets" in caplog.text
    assert "token" not in caplog.text.lower()


def test_repr_and_state_show_no_token(connect):
    transport = connect("http://user-less.example")
    assert TOKEN not in repr(transport)


def test_transport_survives_pickling(start, connect):
    server = start(lambda _seen: [])
    transport = connect(server.url)
    tags.fetch_tags(transport, dataset_id=DATASET)
    copy = pickle.loads(pickle.dumps(transport))
    assert tags.fetch_tags(copy, dataset_id=DATASET) == []
    copy.close()


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tok\r\nHost: evil", "a\tb", "\u20ac", "a\x00", " a"])
def test_unusable_tokens_are_refused(token):
    with pytest.raises(ConfigError) as caught:
        Transport(server="http://x.example", token=token)
    assert not token.strip() or token not in str(caught.value)


@pytest.mark.parametrize(
    "server",
    [
        "",
        "example.com",
        "ftp://x",
        "http://",
        "http://u:p@h",
        "http://h?x=1",
        "http://h:port",
        "http://h\n",
        "file:///x",
    ],
)
def test_unusable_servers_are_refused(server):
    if server.endswith("\n"):
        server = "http://h\nx"
    with pytest.raises(ConfigError, match="LIGHTLY_SERVER_LOCATION"):
        Transport(server=server, token="t")


def test_missing_ca_file_is_refused():
    with pytest.raises(ConfigError, match="LIGHTLY_CA_CERTS"):
        Transport(server="https://x", token="t", ca_certs="/no/such/file")


def test_observer_hears_of_each_try_with_template_and_code(start, connect):
    seen: list[RequestSeen] = []
    replies = [Reply(500), []]
    server = start(lambda _seen: replies.pop(0))
    tags.fetch_tags(connect(server.url, observer=seen.append), dataset_id=DATASET)
    assert [(one.endpoint, one.code) for one in seen] == [(f"GET {TAGS}", "500"), (f"GET {TAGS}", "200")]
    assert all(0 < one.duration_s < 5 for one in seen)


def test_observer_hears_error_when_nothing_came(connect):
    seen: list[RequestSeen] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotSentError):
        tags.fetch_tags(connect(f"http://127.0.0.1:{port}", observer=seen.append), dataset_id=DATASET)
    assert [one.code for one in seen] == ["error"] * 3


def test_stop_event_ends_waits_between_tries(start, connect):
    stop = threading.Event()
    server = start(lambda _seen: (stop.set(), Reply(503))[1])
    with pytest.raises(CancelledError):
        tags.fetch_tags(connect(server.url, stop=stop, retry=Backoff(base_s=30)), dataset_id=DATASET)
    assert _count(server) == 1


def test_retries_end_at_the_total_time(start, connect):
    server = start(lambda _seen: Reply(503))
    transport = connect(server.url, retry=Backoff(base_s=0.2, cap_s=0.2, max_attempts=99), retry_total_s=0.5)
    begun = time.monotonic()
    with pytest.raises(ServiceException):
        tags.fetch_tags(transport, dataset_id=DATASET)
    assert time.monotonic() - begun < 15


def test_server_time_comes_from_the_date_header(start, connect):
    server = start(lambda _seen: Reply(body=b'"5"', date="Tue, 01 Mar 2022 10:00:00 GMT"))
    transport = connect(server.url)
    assert transport.server_now_s() is None
    seen = transport.fetch_server_time()
    assert seen.date_s == 1646128800
    assert abs(seen.local_s - time.time()) < 5
    assert seen.skew_s < -1e6
    assert transport.server_now_s() in (1646128800, 1646128801)
    assert server.seen[0].query == {"token": TOKEN}


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_server_time_without_readable_date_is_protocol_error(start, connect, date):
    server = start(lambda _seen: Reply(body=b'"5"', date=date))
    with pytest.raises(ProtocolError, match="Date"):
        connect(server.url).fetch_server_time()


def test_many_threads_share_a_transport(start, connect):
    server = start(lambda seen: [] if seen.query["n"] == "0" else {"id": seen.query["n"]})
    transport = connect(server.url)
    wrong: list[str] = []

    def work(number: int) -> None:
        for _ in range(20):
            found = transport.get_json("/x", type=CreateEntityResponse, query={"n": number})
            if found.id != str(number):
                wrong.append(found.id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(server.seen) == 160


def test_proxy_variables_are_honoured(start, connect, monkeypatch):
    proxy = start(lambda _seen: [])
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    tags.fetch_tags(connect("http://api.example.invalid"), dataset_id=DATASET)
    assert proxy.seen[0].target.startswith("http://api.example.invalid/v1/datasets/")
    assert proxy.seen[0].query["token"] == TOKEN
