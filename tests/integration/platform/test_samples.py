"""Samples, mappings, uploads."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from sqlalchemy import update

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.waiting import wait_for
from watcher.platform.store.tables import datasets

WEBP = b"RIFF\x00\x00\x00\x00WEBP rest"
JPEG = b"\xff\xd8\xff\xe0 rest"


class SteppingClock:
    """The machine's clock, set forward by hand."""

    def __init__(self) -> None:
        from watcher.domain.clock import SystemClock

        self._real, self.ahead_s = SystemClock(), 0.0

    def now_s(self) -> float:
        return self._real.now_s() + self.ahead_s

    def monotonic_s(self) -> float:
        return self._real.monotonic_s()

    def wait_s(self, event, seconds) -> bool:
        return event.wait(seconds)


def test_sample_of_a_name_is_made_once(api):
    dataset = api.create_dataset()
    body = {"fileName": "a.jpg", "metaData": {"sizeInBytes": 10}}
    first = api("POST", f"{dataset}/samples", 201, json=body)
    assert api("POST", f"{dataset}/samples", 201, json=body) == first
    assert api("POST", f"{dataset}/samples/withWriteUrls", 201, json=body)["id"] == first["id"]
    found = api("GET", dataset)
    assert (found["nSamples"], found["sizeInBytes"]) == (1, 10)


def test_many_at_once_make_every_name_once_and_leave_no_gap(api):
    dataset = api.create_dataset()
    names = [f"{index // 3}.jpg" for index in range(60)]  # each name three times
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda name: api.create_samples(dataset, [name])[0], names))
    assert len(set(ids)) == 20
    rows = api("GET", f"{dataset}/samples")
    assert [row["index"] for row in rows] == list(range(20))
    assert api("GET", f"{dataset}/mappings", params={"field": "_id"}) == [row["id"] for row in rows]
    assert api("GET", f"{dataset}/mappings", params={"field": "fileName"}) == [
        row["fileName"] for row in rows
    ]


def test_mapping_and_sample_pages_are_counted_in_items(api):
    dataset = api.create_dataset()
    names = [f"{index}.jpg" for index in range(7)]
    ids = api.create_samples(dataset, names)
    for offset in (0, 3, 6, 7, 100):
        page = {"pageSize": 3, "pageOffset": offset}
        mapping = api("GET", f"{dataset}/mappings", params={"field": "fileName", **page})
        assert mapping == names[offset : offset + 3]
        partial = api("GET", f"{dataset}/samples/partial", params={"mode": "fileNames", **page})
        assert (
            partial
            == [{"id": i, "fileName": n} for i, n in zip(ids, names, strict=True)][offset : offset + 3]
        )
    assert api("GET", f"{dataset}/samples/partial", params={"mode": "ids"}) == [{"id": i} for i in ids]
    api.refused("GET", f"{dataset}/mappings", 422, "MALFORMED_REQUEST")
    api.refused(
        "GET", f"{dataset}/mappings", 422, "MALFORMED_REQUEST", params={"field": "_id", "pageSize": 0}
    )


def test_samples_are_sorted_by_position_or_by_id(api, monkeypatch):
    monkeypatch.setattr("watcher.platform.samples._CHUNK", 2)
    dataset = api.create_dataset()
    ids = api.create_samples(dataset, [f"{index}.jpg" for index in range(7)])
    other = api.create_dataset("other")
    api.create_samples(other, ["a.jpg"])

    def read(path="samples", **query):
        return [row["id"] for row in api("GET", f"{dataset}/{path}", params=query)]

    assert read() == read(sortBy="index") == read(mode="ids") == ids
    assert read(sortBy="_id") == sorted(ids)
    for offset in (0, 3, 6, 7, 10**15):
        page = {"sortBy": "_id", "pageSize": 3, "pageOffset": offset}
        assert read(**page) == sorted(ids)[offset : offset + 3]
    # What only the oldest clients ask for: they read whole samples alone.
    assert api("GET", f"{dataset}/samples", params={"mode": "ids"}) == api("GET", f"{dataset}/samples")
    assert read(sortBy="_id", fileName="3.jpg") == [ids[3]]
    api.refused("GET", f"{dataset}/samples", 422, "MALFORMED_REQUEST", params={"sortBy": "name"})


def test_samples_of_an_empty_dataset_are_empty_lists(api):
    dataset = api.create_dataset()
    assert api("GET", f"{dataset}/samples") == []
    assert api("GET", f"{dataset}/mappings", params={"field": "_id"}) == []


def test_sample_is_found_by_name(api):
    dataset = api.create_dataset()
    api.create_samples(dataset, ["a.jpg", "b.jpg"])
    for path in ("samples", "samples/partial"):
        assert len(api("GET", f"{dataset}/{path}", params={"fileName": "b.jpg"})) == 1
        assert api("GET", f"{dataset}/{path}", params={"fileName": "B.jpg"}) == []


def test_metadata_is_cut_to_what_the_strict_client_reads(api):
    dataset = api.create_dataset()
    sent = {
        "is_corrupted": False,
        "corruption": "",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.1],
        "sumOfValues": [1, 2, 3],
        "shape": [4, 5, 1],
        "snr": 3,
        "sharpness": -1.0,
        "luminance": 101,
        "sizeInBytes": 77,
        "later": {"unknown": 1},
    }
    body = {
        "fileName": "a.jpg",
        "thumbName": "a_thumb.webp",
        "metaData": sent,
        "exif": {"Make": "K", "GPSInfo": None},
        "customMetaData": {"deep": [1, {"a": None}]},
    }
    sample = api("POST", f"{dataset}/samples", 201, json=body)["id"]
    found = api("GET", f"{dataset}/samples/{sample}")
    assert found["metaData"] == {
        "mean": [0.1, 0.2, 0.3],
        "sumOfValues": [1.0, 2.0, 3.0],
        "shape": [4, 5, 1],
        "snr": 3.0,
        "sizeInBytes": 77,
    }
    assert found["exif"] == body["exif"]
    assert found["customMetaData"] == body["customMetaData"]
    assert found["thumbName"] == "a_thumb.webp"
    assert isinstance(found["metaData"]["snr"], float)


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, "1" + "0" * 308, "1e308"])
def test_metadata_with_numbers_beyond_any_measure_is_taken_and_cut(light_api, number):
    dataset = light_api.create_dataset()
    names = ("sharpness", "snr", "luminance", "uniformRowRatio")
    values = [f'"{name}": {number}' for name in names]
    values += [f'"{name}": [{number}, 1, {number}]' for name in ("mean", "std", "sumOfSquares", "shape")]
    values.append(f'"custom": {{"a": {number}}}')
    body = f'{{"fileName": "a.jpg", "metaData": {{{", ".join(values)}}}}}'
    sample = light_api("POST", f"{dataset}/samples", 201, data=body)["id"]
    light_api("PUT", f"{dataset}/samples/{sample}", data=body)
    found = light_api("GET", f"{dataset}/samples/{sample}")["metaData"]
    readable = {"sharpness", "snr", "std", "sumOfSquares"} if len(number) < 400 else set()
    assert set(found) == {"custom", *readable}
    assert float(found["custom"]["a"] / 10**200) == float(json.loads(number) / 10**200)


def test_size_beyond_any_file_is_refused_and_changes_nothing(api):
    dataset = api.create_dataset()
    most = {"fileName": "a.jpg", "metaData": {"sizeInBytes": 2**43}}
    sample = api("POST", f"{dataset}/samples", 201, json=most)["id"]
    for size in (2**43 + 1, 2**53 - 1, 2**64, 10**400):
        body = {"fileName": "b.jpg", "metaData": {"sizeInBytes": size}}
        code = "SAMPLE_CREATE_REQUEST_INVALID_FORMAT"
        text = api.refused("POST", f"{dataset}/samples", 422, code, json=body)
        assert text == f"sizeInBytes is {2**43} at the most"
        api.refused("PUT", f"{dataset}/samples/{sample}", 422, code, json=body)
    found = api("GET", dataset)
    assert (found["nSamples"], found["sizeInBytes"]) == (1, 2**43)


def test_sizes_of_a_dataset_add_up_to_what_a_database_holds(server, api):
    dataset = api.create_dataset()
    (first,) = api.create_samples(dataset, ["a.jpg"])
    # A million samples of the greatest size lead here.
    with server.platform.database.write() as session:
        session.execute(update(datasets).values(size_in_bytes=2**63 - 1 - 100))
    body = {"fileName": "b.jpg", "metaData": {"sizeInBytes": 101}}
    text = api.refused("POST", f"{dataset}/samples", 422, "DATASET_AT_MAX_CAPACITY", json=body)
    assert str(2**63 - 1) in text
    api.refused("PUT", f"{dataset}/samples/{first}", 422, "DATASET_AT_MAX_CAPACITY", json=body)
    body["metaData"] = {"sizeInBytes": 100}
    api("POST", f"{dataset}/samples", 201, json=body)
    api("PUT", f"{dataset}/samples/{first}", json={"metaData": {"sizeInBytes": 0}})
    found = api("GET", dataset)
    assert (found["nSamples"], found["sizeInBytes"]) == (2, 2**63 - 1)


def test_update_changes_only_what_was_sent_and_replaces_custom_metadata(api):
    dataset = api.create_dataset()
    body = {"fileName": "a.jpg", "customMetaData": {"a": 1}, "metaData": {"sizeInBytes": 5}}
    sample = api("POST", f"{dataset}/samples", 201, json=body)["id"]
    path = f"{dataset}/samples/{sample}"
    api("PUT", path, json={"customMetaData": {"b": 2}}, params={"enableDatasetUpdate": "True"})
    found = api("GET", path)
    assert (found["customMetaData"], found["metaData"], found["fileName"]) == (
        {"b": 2},
        {"sizeInBytes": 5},
        "a.jpg",
    )
    api("PUT", path, json={"metaData": {"sizeInBytes": 9}})
    assert api("GET", dataset)["sizeInBytes"] == 9
    api.create_samples(dataset, ["b.jpg"])
    api.refused("PUT", path, 422, "CONFLICT", json={"fileName": "b.jpg"})
    api.refused("PUT", f"{dataset}/samples/{'0' * 24}", 404, "SAMPLE_UNKNOWN", json={})


def test_custom_metadata_beyond_the_limit_is_refused(build_server):
    with Caller(build_server(max_custom_metadata_bytes=100).url, TOKEN) as api:
        dataset = api.create_dataset()
        (sample,) = api.create_samples(dataset, ["a.jpg"])
        body = {"customMetaData": {"a": "x" * 100}}
        api.refused("PUT", f"{dataset}/samples/{sample}", 413, "CUSTOM_METADATA_AT_MAX_SIZE", json=body)


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../a", "a/../b", "a/..", "./a", "a\0b", "a/", "a//", "x" * 2049, "é" * 1025]
)
def test_name_that_no_client_could_store_is_refused(light_api, name):
    dataset = light_api.create_dataset()
    light_api.refused(
        "POST", f"{dataset}/samples", 422, "SAMPLE_CREATE_REQUEST_INVALID_FORMAT", json={"fileName": name}
    )
    assert light_api("GET", dataset)["nSamples"] == 0


def test_names_that_a_bucket_or_another_system_may_hold_are_taken(light_api):
    dataset = light_api.create_dataset()
    names = ["a//b.jpg", "..\\b.jpg", "a\\b.jpg", "C:b.jpg", " ", "..."]
    samples = light_api.create_samples(dataset, names)
    assert light_api("GET", f"{dataset}/mappings", params={"field": "fileName"}) == names
    for sample in samples:
        url = light_api("GET", f"{dataset}/samples/{sample}/writeurls")["full"]
        assert requests.put(url, data=JPEG, timeout=5).status_code == 200
        assert (
            requests.get(light_api("GET", f"{dataset}/samples/{sample}/readurl"), timeout=5).content == JPEG
        )


def test_names_that_differ_in_case_alone_are_two_samples(api):
    dataset = api.create_dataset()
    first, second = api.create_samples(dataset, ["A.jpg", "a.jpg"])
    for sample, content in ((first, JPEG + b"1"), (second, JPEG + b"2")):
        url = api("GET", f"{dataset}/samples/{sample}/writeurls")["full"]
        assert requests.put(url, data=content, timeout=5).status_code == 200
    for sample, content in ((first, JPEG + b"1"), (second, JPEG + b"2")):
        url = api("GET", f"{dataset}/samples/{sample}/readurl", params={"type": "full"})
        assert requests.get(url, timeout=5).content == content


def test_thumbnail_goes_in_and_out_by_signed_urls(api):
    dataset = api.create_dataset()
    (sample,) = api.create_samples(dataset, ["a.jpg"])
    path = f"{dataset}/samples/{sample}"
    api.refused("GET", f"{path}/readurl", 404, "SAMPLE_THUMBNAME_UNKNOWN", params={"type": "thumbnail"})
    api.refused("GET", f"{path}/readurl", 404, "NOT_FOUND")
    url = api("GET", f"{path}/writeurl", params={"isThumbnail": "True"})
    headers = {"x-ms-blob-type": "BlockBlob", "Accept-Encoding": "*"}
    assert requests.put(url, data=WEBP, headers=headers, timeout=5).status_code == 200
    answer = requests.get(api("GET", f"{path}/readurl", params={"type": "thumbnail"}), timeout=5)
    assert (answer.content, answer.headers["Content-Type"]) == (WEBP, "image/webp")
    redirected = api.request("GET", f"{path}/readurlRedirect", params={"type": "thumbnail"})
    assert redirected.content == WEBP
    assert redirected.history[0].status_code == 302


def test_full_image_of_a_datasource_needs_no_upload(api, root):
    (root / "in" / "a b.jpg").write_bytes(JPEG)
    dataset = api.create_dataset()
    api.set_local(dataset)
    (sample,) = api.create_samples(dataset, ["a b.jpg"])
    url = api("GET", f"{dataset}/samples/{sample}/readurl", params={"type": "full"})
    assert requests.get(url, timeout=5).content == JPEG


def test_active_content_is_never_served_as_such(api):
    dataset = api.create_dataset()
    (sample,) = api.create_samples(dataset, ["a.html"])
    url = api("GET", f"{dataset}/samples/{sample}/writeurls")["full"]
    html = b"<script>alert(1)</script>"
    assert requests.put(url, data=html, headers={"Content-Type": "text/html"}, timeout=5).status_code == 200
    answer = requests.get(api("GET", f"{dataset}/samples/{sample}/readurl"), timeout=5)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == "attachment"


def test_signed_url_is_good_for_one_object_one_direction_and_some_time(build_server):
    clock = SteppingClock()
    server = build_server(clock=clock)
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        first, second = api.create_samples(dataset, ["a.jpg", "b.jpg"])
        urls = api("GET", f"{dataset}/samples/{first}/writeurls")
        bent = [
            urls["full"].replace(f"/{first[-2:]}/{first}", f"/{second[-2:]}/{second}"),
            urls["full"].replace("/full/", "/thumb/"),
            urls["full"][:-1] + ("0" if urls["full"][-1] != "0" else "1"),
            urls["full"].partition("?")[0],
            urls["full"].partition("?")[0] + "?e=99999999999&s=ü",
        ]
        expiry = dict(parse_qsl(urlsplit(urls["full"]).query))["e"]
        bent.append(urls["full"].replace(expiry, str(int(expiry) + 1)))
        for url in bent:
            answer = requests.put(url, data=JPEG, timeout=5)
            assert (answer.status_code, answer.json()["code"]) == (403, "FORBIDDEN")
        assert requests.get(urls["full"], timeout=5).status_code == 403
        clock.ahead_s = 880  # the machine may take its time
        assert requests.put(urls["full"], data=JPEG, timeout=5).status_code == 200
        clock.ahead_s = 902
        assert requests.put(urls["full"], data=JPEG, timeout=5).status_code == 403
        read = api("GET", f"{dataset}/samples/{first}/readurl")
        assert requests.put(read, data=JPEG, timeout=5).status_code == 403
        clock.ahead_s += 3580
        assert requests.get(read, timeout=5).content == JPEG
        clock.ahead_s += 22
        assert requests.get(read, timeout=5).status_code == 403


def test_cut_or_empty_or_too_large_upload_leaves_nothing(build_server, tmp_path):
    server = build_server(max_thumbnail_bytes=1000)
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        (sample,) = api.create_samples(dataset, ["a.jpg"])
        url = api("GET", f"{dataset}/samples/{sample}/writeurl", params={"isThumbnail": "true"})
        assert requests.put(url, data=b"x" * 1001, timeout=5).status_code == 413
        assert requests.put(url, data=iter([b"x" * 600] * 2), timeout=5).status_code == 413
        # What the retry of the original sends: the file was read to its end by the first try.
        assert requests.put(url, data=iter([]), timeout=5).status_code == 422
        assert requests.put(url, data=b"", timeout=5).status_code == 422
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: h\r\nContent-Length: 500\r\n\r\n"
            connection.sendall(head.encode() + b"x" * 100)
        api.refused(
            "GET",
            f"{dataset}/samples/{sample}/readurl",
            404,
            "SAMPLE_THUMBNAME_UNKNOWN",
            params={"type": "thumbnail"},
        )
        assert requests.put(url, data=b"x" * 1000, timeout=5).status_code == 200
    server.stop()
    assert list((tmp_path / "data" / "blobs" / "uploads").iterdir()) == []


def test_upload_for_a_deleted_dataset_is_refused_and_leaves_nothing(build_server, tmp_path):
    with Caller(build_server().url, TOKEN) as api:
        dataset = api.create_dataset()
        (sample,) = api.create_samples(dataset, ["a.jpg"])
        urls = api("GET", f"{dataset}/samples/{sample}/writeurls")
        requests.put(urls["full"], data=JPEG, timeout=5)
        api("DELETE", dataset)
        assert requests.put(urls["thumb"], data=WEBP, timeout=5).status_code == 404
        blobs = tmp_path / "data" / "blobs" / dataset[-24:]
        wait_for(lambda: not blobs.exists(), what="the uploads are gone")
