"""Buckets that hold keys which the driver of the store cannot name, over the stores' own protocols."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import obstore
import pytest
import structlog
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from moto.s3.models import s3_backends
from obstore.store import MemoryStore

from tests.builders import ManualClock
from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_buckets import GCS, PRIVATE_KEY, bucket, s3, s3_url
from tests.integration.platform.test_datasources import list_all
from tests.integration.platform.test_roles import IDENTITY, ROLE
from watcher.platform.objects import s3keys
from watcher.platform.objects.s3keys import BucketKeys, Place, is_readable
from watcher.platform.objects.signature import sign

__all__ = ["bucket", "s3_url"]

ODD = ["a//b.jpg", "/c.jpg", "x/../d.jpg", "./e.jpg", "tab\t.jpg", "x//", "z" * 200 + "//f.jpg"]


@pytest.fixture
def api(build_server, s3_url):
    with Caller(build_server(page_size=700, s3_endpoint=s3_url).url, TOKEN) as caller:
        yield caller


@pytest.fixture
def dataset(api) -> str:
    path = api.create_dataset()
    api("PUT", f"{path}/datasource", json=s3())
    return path


def fill(names: list[str], *, second: float) -> None:
    """Puts objects into the double itself, since 2,500 calls would be slow."""
    for name in names:
        key = s3_backends["123456789012"]["aws"].put_object("pictures", f"incoming/{name}", b"x")
        key.last_modified = key.last_modified.fromtimestamp(second, key.last_modified.tzinfo)


@pytest.mark.parametrize(
    "odd",
    [
        "m01250//b.jpg",
        pytest.param("a//b.jpg", marks=pytest.mark.deep),
        pytest.param("z//b.jpg", marks=pytest.mark.deep),
    ],
)
def test_key_with_an_empty_part_leaves_all_others_listed_in_stable_pages(api, dataset, bucket, odd):
    names = [f"m{number:05}.jpg" for number in range(2500)]
    now = int(time.time())
    fill(names[:1500], second=now - 1000)
    fill(names[1500:], second=now)
    bucket(f"incoming/{odd}")
    assert list_all(api, dataset) == names
    assert list_all(api, dataset, **{"from": now - 500, "to": now + 500}) == names[1500:]
    cursor = api("GET", f"{dataset}/datasource/list")["cursor"]
    pages = [api("GET", f"{dataset}/datasource/list", params={"cursor": cursor})["data"] for _ in range(2)]
    assert [[row["fileName"] for row in page] for page in pages] == [names[700:1400]] * 2


def test_keys_that_cannot_be_read_are_left_out_with_one_warning(api, dataset, bucket):
    good = ["a b.jpg", "a+b%20.jpg", "ünï/日本.png", "q?x=1&y#z.jpg", "tilde~'(1).png", "c\\d.jpg"]
    for name in [*good, *ODD]:
        bucket(f"incoming/{name}")
    for name in ["", "folder/"]:
        bucket(f"incoming/{name}", b"")
    with structlog.testing.capture_logs() as logs:
        assert sorted(list_all(api, dataset)) == sorted(good)
    (told,) = [entry for entry in logs if entry["event"] == "datasource.names_skipped"]
    assert (told["count"], told["folder"], told["log_level"]) == (len(ODD), "pictures/incoming", "warning")
    assert told["example"] == "'./e.jpg'"
    assert api.request("GET", f"{dataset}/datasource/verify").json()["canList"]


def test_example_of_a_warning_is_short(api, dataset, bucket):
    bucket(f"incoming/{ODD[-1]}")
    with structlog.testing.capture_logs() as logs:
        assert list_all(api, dataset) == []
    (told,) = [entry for entry in logs if entry["event"] == "datasource.names_skipped"]
    assert told["example"] == repr("z" * 100)


def test_nothing_is_listed_twice_behind_a_marker_at_the_end_of_a_page(api, dataset, bucket):
    """The driver takes the slash off a marker, so that its name sorts before names it comes behind."""
    names = [f"d-{number:04}.jpg" for number in range(999)]
    fill(names, second=1000)
    bucket("incoming/d/", b"")
    bucket("incoming/d/x.jpg")
    bucket("incoming/e//f.jpg")
    assert sorted(name for name in list_all(api, dataset) if name != "d") == sorted([*names, "d/x.jpg"])


def test_object_whose_name_the_driver_cannot_read_is_none(api, dataset, bucket):
    bucket("incoming/a//b.jpg")
    for sample in api.create_samples(dataset, ["a//b.jpg", "tab\t.jpg"]):
        api.refused("GET", f"{dataset}/samples/{sample}/readurl", 404, "NOT_FOUND")


def test_bucket_of_a_role_with_such_a_key_is_listed_with_the_session_token(
    build_server, s3_url, bucket, monkeypatch
):
    signed = []
    monkeypatch.setattr(s3keys, "sign", lambda *a, **k: signed.append((a, k)) or sign(*a, **k))
    for name in ("a.jpg", "a//b.jpg", "c.jpg"):
        bucket(f"incoming/{name}")
    server = build_server(s3_endpoint=s3_url, sts_endpoint=s3_url, page_size=20, **IDENTITY)
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        api("PUT", f"{dataset}/datasource", json=ROLE)
        assert list_all(api, dataset) == ["a.jpg", "c.jpg"]
    (((_method, _url, headers), more),) = signed
    assert headers["x-amz-security-token"]
    assert more["scope"].key_id.startswith("ASIA")  # a temporary key's first letters


def test_google_bucket_with_such_a_key_tells_the_key_and_the_way_out(build_server, s3_url, bucket):
    bucket("incoming/a//b.jpg", ACL="public-read")
    with Caller(build_server(gcs_endpoint=s3_url).url, TOKEN) as api:
        dataset = api.create_dataset()
        settings = {
            "type": "GCS",
            "fullPath": "gs://pictures/incoming",
            "purpose": "INPUT",
            "gcsProjectId": "p",
            "gcsCredentials": json.dumps({**GCS, "private_key": PRIVATE_KEY}),
        }
        api("PUT", f"{dataset}/datasource", json=settings)
        text = api.refused("GET", f"{dataset}/datasource/list", 422, "DATASET_DATASOURCE_INVALID")
        assert '"incoming/a//b.jpg"' in text
        assert "rename or delete it, or narrow fullPath" in text


@given(st.text(st.sampled_from("a./\\ %\t\x7f\x80é"), min_size=1, max_size=6))
def test_readable_names_are_those_that_the_driver_keeps_as_they_are(name):
    store = MemoryStore()
    try:
        obstore.put(store, name, b"")
    except ValueError:
        kept = False
    else:
        kept = [entry["path"] for entry in obstore.list(store).collect()] == [name]
    assert is_readable(name) == kept


PAGE = (
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType>'
    "<IsTruncated>{more}</IsTruncated><NextContinuationToken>t/1+=</NextContinuationToken><Contents>"
    "<Key>in/{key}</Key><LastModified>1970-01-01T00:16:40.900Z</LastModified><Size>3</Size></Contents>"
    "</ListBucketResult>"
)


class Store:
    """A store that answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: list[tuple[int, str]] = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                store.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                status, text = store.answers.pop(0) if len(store.answers) > 1 else store.answers[0]
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def store():
    made = Store()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def read_keys(store: Store, after: str = "") -> list[tuple[str, int]]:
    place = Place("pictures", "in", "eu-central-1", store.url)
    credential = {
        "access_key_id": "key",
        "secret_access_key": "secret",
        "token": "session",
        "expires_at": None,
    }
    keys = BucketKeys(place, load=lambda: credential, clock=ManualClock())
    return [(key.name, key.modified_s) for key in keys.read(after)]


def test_each_page_is_signed_as_the_vendors_library_does_and_carries_the_session_token(store):
    store.answers = [
        (200, PAGE.format(more="true", key="a+b%2Bc")),
        (200, PAGE.format(more="false", key="%C3%BC")),
    ]
    assert read_keys(store, "9 é~") == [("a b+c", 1000), ("ü", 1000)]
    queries = [parse_qs(urlsplit(path).query) for path, _headers in store.asked]
    assert (queries[0]["start-after"], queries[0]["prefix"]) == (["in/9 é~"], ["in/"])
    assert (queries[1]["continuation-token"], queries[1].get("start-after")) == (["t/1+="], None)
    assert (
        "start-after=in%2F9%20%C3%A9~" in store.asked[0][0]
    )  # a plus sign would be signed as another letter
    for path, headers in store.asked:
        assert headers["x-amz-security-token"] == "session"
        request = AWSRequest("GET", store.url + path)
        theirs = S3SigV4Auth(Credentials("key", "secret", "session"), "s3", "eu-central-1")
        for name in ("x-amz-content-sha256", "x-amz-date", "x-amz-security-token"):
            request.headers[name] = headers[name]
        request.context["timestamp"] = headers["x-amz-date"]
        text = theirs.string_to_sign(request, theirs.canonical_request(request))
        assert headers["authorization"].endswith(f"Signature={theirs.signature(text, request)}")


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaa">]>' + PAGE.format(more="false", key="&a;")


@pytest.mark.parametrize(
    ("status", "text", "error", "words"),
    [
        (403, "", PermissionError, "refused"),
        (404, "", FileNotFoundError, "bucket"),
        (301, "", OSError, "301"),
        (503, "", OSError, "503"),
        (200, ENTITIES, OSError, "cannot be read"),
        (200, "<html/>", OSError, "cannot be read"),
        (200, "no xml", OSError, "cannot be read"),
        (200, PAGE.format(more="true", key="a"), OSError, "does not go on"),
        (200, PAGE.format(more="false", key="%FF").replace("in/", "other/"), OSError, "cannot be read"),
        (200, " " * (17 << 20), OSError, "too long"),
    ],
    ids=["denied", "none", "redirect", "down", "entities", "page", "no-xml", "endless", "foreign", "long"],
)
def test_answer_that_is_no_listing_is_an_error(store, status, text, error, words):
    store.answers = [(status, text)]
    with pytest.raises(error, match=words) as refused:
        read_keys(store)
    assert type(refused.value) is error
    assert "secret" not in str(refused.value)


def test_page_that_failed_for_a_moment_is_asked_for_again(store):
    store.answers = [(503, ""), (200, PAGE.format(more="false", key="a"))]
    assert read_keys(store) == [("a", 1000)]


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, "https://pictures.s3.eu-central-1.amazonaws.com/"),
        ("https://s3.example/", "https://s3.example/pictures"),
    ],
)
def test_address_of_a_bucket_has_the_style_of_the_driver(endpoint, url):
    assert Place("pictures", "in", "eu-central-1", endpoint).url == url


def test_azure_container_with_such_a_key_tells_the_key_and_the_way_out(build_server, store):
    blob = (
        "<Blob><Name>incoming/a//b.jpg</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT"
        "</Last-Modified><Etag>x</Etag><Content-Length>1</Content-Length><Content-Type>x</Content-Type></Properties></Blob>"
    )
    store.answers = [
        (200, f"<EnumerationResults><Blobs>{blob}</Blobs><NextMarker></NextMarker></EnumerationResults>")
    ]
    with Caller(build_server(azure_endpoint=store.url).url, TOKEN) as api:
        dataset = api.create_dataset()
        settings = {"type": "AZURE", "fullPath": "container/incoming", "purpose": "INPUT"}
        account = {"accountName": "account", "accountKey": "a2V5"}
        api("PUT", f"{dataset}/datasource", json={**settings, **account})
        text = api.refused("GET", f"{dataset}/datasource/list", 422, "DATASET_DATASOURCE_INVALID")
    assert '"incoming/a//b.jpg"' in text
    assert "rename or delete it, or narrow fullPath" in text
