"""Datasources in buckets, over the stores' own protocols."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import boto3
import pytest
import requests
from botocore.config import Config
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from moto.server import ThreadedMotoServer

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_datasources import list_all
from tests.integration.platform.test_samples import WEBP
from tests.waiting import wait_for
from watcher.domain.errors import ConfigError

SECRET = "the-secret-access-key"
NAMES = [
    "a b.jpg",
    "a+b%20.jpg",
    "ünï/日本.png",
    ".dot.jpg",
    "q?x=1&y#z.jpg",
    "plain/deep/c.jpg",
    "tilde~'(1).png",
]


def s3(**changes) -> dict:
    settings = {
        "type": "S3",
        "fullPath": "s3://pictures/incoming",
        "purpose": "INPUT_OUTPUT",
        "s3Region": "eu-central-1",
        "s3AccessKeyId": "the-access-key",
        "s3SecretAccessKey": SECRET,
    }
    return {**settings, **changes}


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_url):
    requests.post(f"{s3_url}/moto-api/reset", timeout=5)
    client = boto3.client(
        "s3",
        endpoint_url=s3_url,
        region_name="eu-central-1",
        aws_access_key_id="x",
        aws_secret_access_key="y",
        config=Config(s3={"addressing_style": "path"}),
    )
    client.create_bucket(Bucket="pictures", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def put(name: str, content: bytes | None = None, **more) -> None:
        client.put_object(
            Bucket="pictures", Key=name, Body=name.encode() if content is None else content, **more
        )

    return put


@pytest.fixture
def api(build_server, s3_url) -> Iterator[Caller]:
    with Caller(build_server(page_size=3, s3_endpoint=s3_url).url, TOKEN) as caller:
        yield caller


@pytest.fixture
def dataset(api) -> str:
    path = api.create_dataset()
    api("PUT", f"{path}/datasource", json=s3())
    return path


def test_objects_of_a_bucket_are_listed_and_read_by_urls_of_the_store(api, dataset, bucket, s3_url):
    for name in NAMES:
        bucket(f"incoming/{name}")
    bucket("elsewhere/x.jpg")
    bucket("incoming/.lightly/metadata/x.json")
    bucket("incoming/half.jpg.part")
    assert sorted(list_all(api, dataset)) == sorted(NAMES)
    rows, cursor = [], None
    while True:
        page = api("GET", f"{dataset}/datasource/list", params={"cursor": cursor} if cursor else {})
        rows, cursor = rows + page["data"], page["cursor"]
        if not page["hasMore"]:
            break
    for row in rows:
        assert row["readUrl"].startswith(s3_url)
        assert SECRET not in row["readUrl"]
        assert requests.get(row["readUrl"], timeout=5).content == f"incoming/{row['fileName']}".encode()
    now = int(time.time())
    assert list_all(api, dataset, **{"from": now + 100}) == []
    assert len(list_all(api, dataset, **{"from": now - 100, "to": now + 100})) == len(NAMES)


def test_redirected_url_of_a_bucket_leads_to_the_store(api, dataset, bucket):
    bucket("incoming/a b.jpg")
    (row,) = api("GET", f"{dataset}/datasource/list", params={"useRedirectedReadUrl": "True"})["data"]
    assert row["readUrl"].startswith(api.url)
    assert requests.get(row["readUrl"], timeout=5).content == b"incoming/a b.jpg"


def test_rights_are_tried_and_leave_nothing_behind(api, dataset, bucket):
    reply = api.request("GET", f"{dataset}/datasource/verify").json()
    assert reply == {"canRead": True, "canWrite": True, "canList": True, "canOverwrite": True}
    bucket("incoming/a.jpg")
    api("PUT", f"{dataset}/datasource", json=s3(fullPath="pictures"))
    assert list_all(api, dataset) == ["incoming/a.jpg"]


def test_missing_bucket_is_an_error_and_never_an_empty_listing(api, dataset, bucket):
    api("PUT", f"{dataset}/datasource", json=s3(fullPath="s3://nowhere/x"))
    api.refused("GET", f"{dataset}/datasource/list", 422, "DATASET_DATASOURCE_INVALID")
    reply = api.request("GET", f"{dataset}/datasource/verify").json()
    assert (reply["canList"], reply["canWrite"]) == (False, False)
    assert set(reply["errors"]) == {"canRead", "canWrite", "canList", "canOverwrite"}


def test_credentials_are_encrypted_and_never_given_back(api, dataset, build_server, tmp_path):
    found = api("GET", f"{dataset}/datasource")
    assert (found["s3AccessKeyId"], found["s3SecretAccessKey"]) == ("the-access-key", "***")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"the-access-key" in everything
    assert SECRET.encode() not in everything


def test_full_picture_in_a_bucket_needs_no_upload(api, dataset, bucket):
    bucket("incoming/a.jpg", b"\xff\xd8\xff picture")
    first, second = api.create_samples(dataset, ["a.jpg", "b.jpg"])
    url = api("GET", f"{dataset}/samples/{first}/readurl")
    assert requests.get(url, timeout=5).content == b"\xff\xd8\xff picture"
    api.refused("GET", f"{dataset}/samples/{second}/readurl", 404, "NOT_FOUND")


PRIVATE_KEY = (
    rsa.generate_private_key(public_exponent=65537, key_size=2048)
    .private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    .decode()
)
GCS = {"type": "service_account", "private_key": "k", "private_key_id": "i", "client_email": "e"}
EVIL = [
    s3(s3Region="evil.example/"),
    s3(s3Region="eu-central-1.evil.example"),
    s3(fullPath="s3://evil.example@x/y"),
    s3(fullPath="s3://pictures/../other"),
    {
        "type": "OBS",
        "fullPath": "pictures",
        "obsEndpoint": "http://169.254.169.254",
        "obsAccessKeyId": "a",
        "obsSecretAccessKey": "b",
    },
    {"type": "AZURE", "fullPath": "container", "accountName": "evil.example/", "accountKey": "a2V5"},
    {"type": "AZURE", "fullPath": "container", "accountName": "UPPER", "accountKey": "a2V5"},
    {
        "type": "GCS",
        "fullPath": "pictures",
        "gcsProjectId": "p",
        "gcsCredentials": json.dumps({**GCS, "type": "external_account"}),
    },
    {
        "type": "GCS",
        "fullPath": "pictures",
        "gcsProjectId": "p",
        "gcsCredentials": json.dumps({**GCS, "token_uri": "http://169.254.169.254/"}),
    },
    {"type": "GCS", "fullPath": "pictures", "gcsProjectId": "p", "gcsCredentials": "/etc/passwd"},
    {
        "type": "GCS",
        "fullPath": "pictures",
        "gcsProjectId": "p",
        "gcsCredentials": json.dumps({**GCS, "private_key": 3}),
    },
]


@pytest.mark.parametrize("settings", EVIL, ids=lambda s: f"{s['type']}-{s['fullPath']}"[:30])
def test_configuration_cannot_choose_the_host(api, dataset, settings):
    answer = api.request("PUT", f"{dataset}/datasource", json={**settings, "purpose": "INPUT_OUTPUT"})
    assert answer.status_code == 422
    assert answer.json()["code"].startswith("DATASET_DATASOURCE_")
    assert api("GET", f"{dataset}/datasource")["type"] == "S3"


def test_endpoint_on_the_operators_list_is_allowed(build_server, s3_url, bucket):
    bucket("incoming/a.jpg")
    with Caller(build_server(datasource_endpoints=(s3_url,)).url, TOKEN) as api:
        dataset = api.create_dataset()
        settings = {
            "type": "OBS",
            "fullPath": "pictures/incoming",
            "purpose": "INPUT",
            "obsEndpoint": s3_url,
            "obsAccessKeyId": "a",
            "obsSecretAccessKey": "b",
        }
        api("PUT", f"{dataset}/datasource", json=settings)
        assert list_all(api, dataset) == ["a.jpg"]


def test_uploads_in_a_bucket_work_like_those_in_a_folder(build_server, s3_url, bucket, monkeypatch, tmp_path):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "eu-central-1",
        "AWS_ENDPOINT": s3_url,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    server = build_server(blob_url="s3://pictures/uploads")
    blobs = server.platform.blobs
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        names = ["a.jpg", "b.jpg", "c.jpg"]
        first, *_rest = api.create_samples(dataset, names)
        path = f"{dataset}/samples/{first}"
        api.refused("GET", f"{path}/readurl", 404, "SAMPLE_THUMBNAME_UNKNOWN", params={"type": "thumbnail"})
        url = api("GET", f"{path}/writeurl", params={"isThumbnail": "true"})
        assert requests.put(url, data=WEBP, timeout=5).status_code == 200
        answer = requests.get(api("GET", f"{path}/readurl", params={"type": "thumbnail"}), timeout=5)
        assert (answer.content, answer.headers["Content-Type"]) == (WEBP, "image/webp")
        api.create_initial_tag(dataset)
        embedding = api.upload_embedding(dataset, names, [[0.0, 1.0], [2.0, 3.0], [9.0, 9.0]])
        config = {"stoppingCondition": {"nSamples": 2, "minDistance": -1}}
        body = {"newTagName": "picked", "method": "CORESET", "config": config, "rowCount": 3}
        job = api("POST", f"{dataset}/embeddings/{embedding}/sampling", json=body)["jobId"]
        assert api.wait(job)["status"] == "FINISHED"
        assert blobs.exists(f"{dataset[-24:]}/thumb/{first[-2:]}/{first}")
        assert not list((tmp_path / "data" / "blobs" / "uploads").iterdir())
        api("DELETE", dataset)
        key = f"{dataset[-24:]}/thumb/{first[-2:]}/{first}"
        wait_for(lambda: not blobs.exists(key), what="the uploads are gone")
        copies = tmp_path / "data" / "blobs" / "local"
        assert not list(copies.iterdir())  # of the vectors


def test_blob_url_that_names_no_store_is_told(build_server):
    with pytest.raises(ConfigError, match="s3://"):
        build_server(blob_url="ftp://somewhere")


def check_google_signature(url: str) -> None:
    """Rebuilds what was signed from the URL alone, as the store does; raises if the signature is not the key's."""
    parts = urlsplit(url)
    query, _, signature = parts.query.partition("&X-Goog-Signature=")
    values = dict(parse_qsl(query))
    assert sorted(query.split("&")) == query.split("&")
    assert values["X-Goog-Credential"].startswith("reader@example.iam/")
    scope = values["X-Goog-Credential"].partition("/")[2]
    path = quote(unquote(parts.path), safe="/~-._")
    request = f"GET\n{path}\n{query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"GOOG4-RSA-SHA256\n{values['X-Goog-Date']}\n{scope}\n{digest}"
    public = serialization.load_pem_private_key(PRIVATE_KEY.encode(), None).public_key()
    public.verify(bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())


def test_google_bucket_is_listed_and_read_by_urls_signed_with_the_accounts_key(build_server, s3_url, bucket):
    """Over the part of Google's XML interface that is the same as S3's."""
    for name in NAMES:
        bucket(f"incoming/{name}", ACL="public-read")  # the double knows no tokens of Google's
    with Caller(build_server(gcs_endpoint=s3_url, page_size=20).url, TOKEN) as api:
        dataset = api.create_dataset()
        account = {**GCS, "private_key": PRIVATE_KEY, "client_email": "reader@example.iam"}
        settings = {
            "type": "GCS",
            "fullPath": "gs://pictures/incoming",
            "purpose": "INPUT",
            "gcsProjectId": "p",
            "gcsCredentials": json.dumps(account),
        }
        api("PUT", f"{dataset}/datasource", json=settings)
        assert api("GET", f"{dataset}/datasource")["gcsCredentials"] == "***"
        rows = api("GET", f"{dataset}/datasource/list")["data"]
        assert sorted(row["fileName"] for row in rows) == sorted(NAMES)
        for row in rows:
            assert row["readUrl"].startswith(
                f"{api.url}/files/"
            )  # a signature by RSA for each row would be slow
            answer = requests.get(row["readUrl"], timeout=5, allow_redirects=False)
            assert (answer.status_code, answer.headers["Cache-Control"]) == (307, "no-store")
            url = answer.headers["Location"]
            assert url.startswith(f"{s3_url}/pictures/incoming/")
            assert 3500 < int(dict(parse_qsl(urlsplit(url).query))["X-Goog-Expires"]) <= 3600
            check_google_signature(url)
            assert requests.get(row["readUrl"], timeout=5).content == f"incoming/{row['fileName']}".encode()
        with pytest.raises(InvalidSignature):
            check_google_signature(url.replace("/incoming/", "/outgoing/"))
        forged = rows[0]["readUrl"].replace("/files/", "/files/x")
        assert requests.get(forged, timeout=5, allow_redirects=False).status_code == 403
        (sample,) = api.create_samples(dataset, [rows[0]["fileName"]])
        direct = api("GET", f"{dataset}/samples/{sample}/readurl", params={"type": "full"})
        assert direct.startswith(f"{s3_url}/pictures/incoming/")
