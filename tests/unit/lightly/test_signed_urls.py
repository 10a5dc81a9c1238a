from __future__ import annotations

import io
import socket
import threading
import time
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.lightly.conftest import TOKEN
from tests.unit.lightly.servers import Reply
from watcher.domain.backoff import Backoff
from watcher.domain.errors import (
    ApiException,
    ConfigError,
    DatasetError,
    ForbiddenException,
    ImageError,
    NotSentError,
    ProtocolError,
    ReadUrlRefusedError,
    SampleGoneError,
    ServiceException,
    TransportError,
    UnknownOutcomeError,
)
from watcher.lightly.addresses import split_address

SECRET = "top" + "secret" * 3
QUERY = f"/x.jpg?X-Goog-Anything={SECRET}"
SIGNED = "/bucket/a%20b%2Fc+d%3a%25.jpg?X-Amz-Signature=a%2fb%2Bc+d/e=&x-id=GetObject&empty=&%7e~"


@pytest.mark.scenario(number=24)
def test_read_url_is_sent_byte_for_byte_and_without_token(start, connect):
    server = start(lambda _seen: Reply(body=b"pixels", content_type="image/jpeg"))
    result = connect(server.url).read_url_bytes(server.url + SIGNED, max_bytes=100)
    assert result.body == b"pixels"
    assert result.size == 6
    (seen,) = server.seen
    assert seen.target == SIGNED
    assert TOKEN not in str(seen.headers)


@settings(max_examples=60)
@given(
    st.text(st.sampled_from("abcXYZ019%+&=:;/?~!*'(),@$[]{}|^`\"<>\\-_. äß€"), max_size=40),
)
def test_split_address_keeps_all_that_http_can_carry(tail):
    shown, target, whole = split_address("http://host:1/" + tail)
    kept = tail.split("#")[0]
    carried = "".join(char for char in kept if "!" <= char <= "~")
    assert [char for char in target if char != "%"] != [] or not carried
    assert whole == "http://host:1" + target
    assert "?" not in shown
    if carried == kept:
        assert target == "/" + kept


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://h", "/"),
        ("http://h?sig=1", "/?sig=1"),
        ("http://h/a b", "/a%20b"),
        ("http://h/../a/./b//c", "/../a/./b//c"),
        ("HTTP://h/%2f%2F", "/%2f%2F"),
        ("http://h/x?", "/x?"),
        ("http://h/x#frag", "/x"),
        ("http://[::1]:80/x", "/x"),
    ],
)
def test_split_address_examples(url, target):
    assert split_address(url)[1] == target


@pytest.mark.parametrize(
    "url", ["", "x", "file:///etc/passwd", "http://", "http:///x", "http://h/\r\nX: y", "ftp://h/x"]
)
def test_split_address_refuses_what_is_no_address(url):
    with pytest.raises(ConfigError):
        split_address(url)


def test_read_url_tells_last_modified_and_etag(start, connect):
    headers = {"Last-Modified": "Tue, 01 Mar 2022 10:00:00 GMT", "ETag": '"x"'}
    server = start(lambda _seen: Reply(body=b"", headers=headers))
    result = connect(server.url).read_url_bytes(server.url + "/x", max_bytes=1)
    assert (result.last_modified_s, result.etag, result.size) == (1646128800, '"x"', 0)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b"", ReadUrlRefusedError),
        (403, b"", ReadUrlRefusedError),
        (400, b"<Code>ExpiredToken</Code>", ReadUrlRefusedError),
        (400, b"bad", ApiException),
        (404, b"", SampleGoneError),
        (410, b"", SampleGoneError),
        (500, b"", ServiceException),
        (418, b"", ApiException),
    ],
)
def test_read_url_statuses_become_typed_errors_without_query(start, connect, status, body, kind):
    server = start(lambda seen: Reply(status, body + seen.target.encode() + SECRET.encode()))
    with pytest.raises(kind) as caught:
        connect(server.url).read_url_bytes(server.url + QUERY, max_bytes=1)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    assert len(server.seen) == (3 if status == 500 else 1)


def test_read_url_too_large_is_refused_by_its_announced_length(start, connect):
    server = start(lambda _seen: Reply(body=b"x" * 5000))
    with pytest.raises(ImageError, match="too large: 5000"):
        connect(server.url).read_url_bytes(server.url + "/x", max_bytes=4999)


def test_read_url_endless_without_length_is_refused_while_it_streams(start_raw, connect):
    sent = [0]

    def flood(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not stop.is_set():
            connection.sendall(b"x" * 65536)
            sent[0] += 65536

    url = start_raw(flood)
    with pytest.raises(ImageError, match="too large"):
        connect(url).read_url_bytes(url + "/x", max_bytes=1_000_000)
    assert sent[0] < 20_000_000


def test_read_url_packed_bomb_is_refused_while_it_unpacks(start, connect):
    import gzip

    bomb = gzip.compress(b"\0" * 50_000_000)
    server = start(lambda _seen: Reply(body=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(ImageError, match="too large"):
        connect(server.url).read_url_bytes(server.url + "/x", max_bytes=1_000_000)


def test_read_url_cut_short_is_transport_error_after_retries(start, connect):
    server = start(lambda _seen: Reply(body=b"123", headers={"Content-Length": "10", "Connection": "close"}))
    with pytest.raises(TransportError, match="broke off"):
        connect(server.url).read_url_bytes(server.url + "/x", max_bytes=100)
    assert len(server.seen) == 3


def test_read_url_redirect_is_followed_but_not_for_ever(start, connect):
    server = start(
        lambda seen: (
            Reply(302, headers={"Location": "/real?sig=%2b"}) if seen.path == "/x" else Reply(body=b"ok")
        )
    )
    assert connect(server.url).read_url_bytes(server.url + "/x", max_bytes=9).body == b"ok"
    assert server.seen[1].target == "/real?sig=%2b"
    loop = start(lambda _seen: Reply(302, headers={"Location": "/x"}))
    with pytest.raises(ProtocolError, match="too often"):
        connect(loop.url).read_url_bytes(loop.url + "/x", max_bytes=9)


def test_open_read_url_streams_in_pieces(start, connect):
    server = start(lambda _seen: Reply(body=b"x" * 1_000_000))
    with connect(server.url).open_read_url(server.url + "/x") as stream:
        assert stream.size == 1_000_000
        assert sum(map(len, stream)) == 1_000_000


def test_open_read_url_deadline_bounds_a_trickle(start_raw, connect):
    def trickle(connection: socket.socket, stop: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not stop.wait(0.05):
            connection.sendall(b"x")

    url = start_raw(trickle)
    begun = time.monotonic()
    with pytest.raises(TransportError), connect(url).open_read_url(url + "/x", deadline_s=0.5) as stream:
        stream.read(100_000)
    assert time.monotonic() - begun < 60


class _File(io.BytesIO):
    pass


def test_put_opens_the_body_anew_for_each_try_and_sends_it_whole(start, connect):
    replies = [Reply(500), Reply(503), Reply(200, b"done")]
    server = start(lambda _seen: replies.pop(0))
    opened: list[_File] = []

    def open_body() -> _File:
        opened.append(_File(b"thirty bytes of an image, or so"))
        return opened[-1]

    response = connect(server.url).put_signed_url(
        server.url + SIGNED, open_body, 31, {"x-ms-blob-type": "BlockBlob"}
    )
    assert response.status_code == 200
    assert [seen.body for seen in server.seen] == [b"thirty bytes of an image, or so"] * 3
    assert [seen.headers["Content-Length"] for seen in server.seen] == ["31"] * 3
    assert server.seen[0].headers["x-ms-blob-type"] == "BlockBlob"
    assert server.seen[0].target == SIGNED
    assert "Content-Type" not in server.seen[0].headers
    assert len(opened) == 3
    assert all(file.closed for file in opened)


def test_put_of_nothing_sends_an_empty_body(start, connect):
    server = start(lambda _seen: Reply(201))
    connect(server.url).put_signed_url(server.url + "/x", io.BytesIO, 0)
    assert server.seen[0].headers["Content-Length"] == "0"


@pytest.mark.parametrize("size", [4, 6])
def test_put_of_a_file_that_changed_is_refused(start, connect, size):
    server = start(lambda _seen: Reply(200))
    with pytest.raises(DatasetError, match="changed meanwhile"):
        connect(server.url).put_signed_url(server.url + "/x", lambda: io.BytesIO(b"12345"), size)


def test_put_refused_names_no_signature(start, connect):
    server = start(lambda seen: Reply(403, f"<Error>{seen.target}<Given>{SECRET}".encode()))
    with pytest.raises(ForbiddenException) as caught:
        connect(server.url).put_signed_url(server.url + QUERY, lambda: io.BytesIO(b"1"), 1)
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)


def test_put_connection_lost_is_unknown_outcome(start_raw, connect):
    url = start_raw(lambda _connection, _stop: None)
    with pytest.raises(UnknownOutcomeError):
        connect(url, retry=Backoff(max_attempts=1)).put_signed_url(url + "/x", lambda: io.BytesIO(b"1"), 1)


def test_put_store_away_is_not_sent(connect):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(NotSentError):
        connect(url).put_signed_url(url + "/x", lambda: io.BytesIO(b"1"), 1)


def test_put_receiver_that_takes_nothing_ends_by_the_time_limit(start_raw, connect):
    def stall(connection: socket.socket, stop: threading.Event) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stop.wait(60)

    url = start_raw(stall)
    size = 50_000_000
    transport = connect(url, read_timeout_s=0.3, retry=Backoff(max_attempts=1))
    begun = time.monotonic()
    with pytest.raises(TransportError):
        transport.put_signed_url(url + "/x", lambda: io.BytesIO(bytes(size)), size)
    assert time.monotonic() - begun < 30
