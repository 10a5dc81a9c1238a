"""Input that is meant to do harm: each piece is refused clearly or does nothing, and nothing is left half done."""

from __future__ import annotations

import gzip
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
import requests

from tests.integration.platform.caller import Caller, build_csv
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_embeddings import NAMES, begin, put, read_vectors

JSON = {"Content-Type": "application/json"}


def uploads_of(server) -> list:
    return list((server.config.data_dir / "blobs" / "uploads").iterdir())


def get_thumbnail_url(api, dataset: str, sample: str) -> str:
    return api("GET", f"{dataset}/samples/{sample}/writeurl", params={"isThumbnail": "true"})


def test_upload_that_stops_coming_is_given_up_and_leaves_nothing(build_server):
    server = build_server(request_timeout_s=0.3)
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        (sample,) = api.create_samples(dataset, ["a.jpg"])
        parts = urlsplit(get_thumbnail_url(api, dataset, sample))
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
            head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 100)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 408 ")
        api.refused(
            "GET",
            f"{dataset}/samples/{sample}/readurl",
            404,
            "SAMPLE_THUMBNAME_UNKNOWN",
            params={"type": "thumbnail"},
        )
        assert uploads_of(server) == []


def test_of_uploads_of_one_name_at_once_one_is_kept_whole(server, api):
    dataset = api.create_dataset()
    (sample,) = api.create_samples(dataset, ["a.jpg"])
    url = get_thumbnail_url(api, dataset, sample)
    contents = [bytes([65 + index]) * 600_000 for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        codes = list(
            pool.map(lambda content: requests.put(url, data=content, timeout=30).status_code, contents)
        )
    assert codes == [200] * 8
    read = api("GET", f"{dataset}/samples/{sample}/readurl", params={"type": "thumbnail"})
    assert requests.get(read, timeout=10).content in contents
    assert uploads_of(server) == []


def test_of_csvs_of_one_embedding_at_once_one_is_kept_whole(server, api):
    dataset = api.create_dataset()
    api.create_samples(dataset, NAMES)
    url = begin(api, dataset)
    vectors = [[[float(which), float(row)] for row in range(len(NAMES))] for which in range(6)]
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda rows: put(url, build_csv(NAMES, rows)).status_code, vectors))
    assert 200 in codes
    assert set(codes) <= {200, 403, 409, 422}
    (record,) = api("GET", f"{dataset}/embeddings")
    kept = read_vectors(server, dataset, record["id"])
    assert any(np.array_equal(kept, np.float32(rows)) for rows in vectors)
    assert uploads_of(server) == []


@pytest.mark.parametrize(
    "name",
    [
        "../a.jpg",
        "..%2fa.jpg",
        "%2e%2e/a.jpg",
        "/etc/passwd",
        "a.jpg%00",
        "a.jpg/",
        "./a.jpg",
        "b.jpg",
        "A.jpg",
    ],
)
def test_url_of_an_object_is_good_for_no_other_name(light_api, root, name):
    (root / "in" / "a.jpg").write_bytes(b"a")
    (root / "in" / "b.jpg").write_bytes(b"b")
    (root / "a.jpg").write_bytes(b"outside")
    dataset = light_api.create_dataset()
    light_api.set_local(dataset)
    rows = light_api("GET", f"{dataset}/datasource/list")["data"]
    url = next(row["readUrl"] for row in rows if row["fileName"] == "a.jpg")
    assert requests.get(url, timeout=5).content == b"a"
    head, _, query = url.partition("?")
    parts = urlsplit(head)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        # By hand: libraries would resolve the dots themselves.
        path = parts.path.removesuffix("a.jpg") + name
        connection.sendall(f"GET {path}?{query} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.split(b" ", 2)[1] in (b"403", b"404")
    assert b"outside" not in answer


@pytest.mark.parametrize("depth", [1_000, 200_000])
def test_deeply_nested_body_is_refused(light_api, depth):
    dataset = light_api.create_dataset()
    body = b'{"fileName":"a.jpg","customMetaData":' + b"[" * depth + b"]" * depth + b"}"
    answer = light_api.request("POST", f"{dataset}/samples", data=body, headers=JSON)
    assert 400 < answer.status_code < 500
    assert light_api("GET", f"{dataset}/samples") == []


def test_compressed_body_is_not_unpacked(light_api):
    body = gzip.compress(b'{"name":"' + b"x" * 50_000_000 + b'"}')
    headers = {**JSON, "Content-Encoding": "gzip"}
    answer = light_api.request("POST", "/v1/datasets", data=body, headers=headers)
    assert answer.status_code == 422
    assert light_api("GET", "/v1/datasets") == []


def build_bomb() -> bytes:
    """A PNG that says 50,000 x 50,000 pixels in two hundred bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_picture_that_is_a_bomb_is_stored_and_given_as_bytes(light_api):
    """The platform decodes no picture, so none can make it grow."""
    dataset = light_api.create_dataset()
    (sample,) = light_api.create_samples(dataset, ["bomb.png"])
    bomb = build_bomb()
    assert (
        requests.put(get_thumbnail_url(light_api, dataset, sample), data=bomb, timeout=5).status_code == 200
    )
    read = light_api("GET", f"{dataset}/samples/{sample}/readurl", params={"type": "thumbnail"})
    answer = requests.get(read, timeout=5)
    assert (answer.content, answer.headers["Content-Type"]) == (bomb, "image/png")


@pytest.mark.parametrize("name", ["a" * 2049, "ü" * 1025, "a\0b", "../a", "/a", "a/../b", ""])
def test_name_of_a_sample_that_could_do_harm_is_refused_and_not_found(light_api, name):
    dataset = light_api.create_dataset()
    answer = light_api.request("POST", f"{dataset}/samples", json={"fileName": name})
    assert answer.status_code == 422, quote(name)
    assert light_api("GET", f"{dataset}/samples") == []
