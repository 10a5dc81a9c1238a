"""Buckets that are reached by assuming a role, over the token service's own protocol."""

from __future__ import annotations

import datetime as dt
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.builders import ManualClock
from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_buckets import bucket, s3_url
from tests.integration.platform.test_datasources import list_all
from watcher.domain.clock import SystemClock
from watcher.platform.faults import Fault
from watcher.platform.objects.roles import Role, RoleSessions, sign_request
from watcher.platform.settings import PlatformConfig

__all__ = ["bucket", "s3_url"]

ROLE = {
    "type": "S3DelegatedAccess",
    "fullPath": "s3://pictures/incoming",
    "purpose": "INPUT_OUTPUT",
    "s3Region": "eu-central-1",
    "s3ExternalId": "external-id-1",
    "s3ARN": "arn:aws:iam::123456789012:role/reader",
}
IDENTITY = {"role_access_key_id": "server-key", "role_secret_access_key": "server-secret"}


@pytest.fixture
def api(build_server, s3_url):
    server = build_server(s3_endpoint=s3_url, sts_endpoint=s3_url, page_size=2, **IDENTITY)
    with Caller(server.url, TOKEN) as caller:
        yield caller


def test_bucket_is_listed_and_read_with_the_credentials_of_the_role(api, bucket):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        bucket(f"incoming/{name}")
    dataset = api.create_dataset()
    api("PUT", f"{dataset}/datasource", json=ROLE)
    assert list_all(api, dataset) == ["a.jpg", "b.jpg", "c.jpg"]
    url = api("GET", f"{dataset}/datasource/list")["data"][0]["readUrl"]
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Credential"][0].startswith("ASIA")  # a temporary key's first letters
    assert query["X-Amz-Security-Token"]
    assert requests.get(url, timeout=5).content == b"incoming/a.jpg"
    assert api("GET", f"{dataset}/datasource/verify")["canOverwrite"]


def test_server_without_an_identity_names_the_way_out(build_server, s3_url):
    with Caller(build_server(s3_endpoint=s3_url, sts_endpoint=s3_url).url, TOKEN) as api:
        dataset = api.create_dataset()
        api("PUT", f"{dataset}/datasource", json=ROLE)
        code = "DATASET_DATASOURCE_ACTION_NOT_IMPLEMENTED"
        text = api.refused("GET", f"{dataset}/datasource/list", 422, code)
        assert "WATCHER_PLATFORM__ROLE_ACCESS_KEY_ID" in text


@pytest.mark.parametrize("region", ["evil.example/", "eu-central-1.evil.example", "EU"])
def test_region_of_a_role_cannot_choose_the_host(api, region):
    dataset = api.create_dataset()
    api.refused(
        "PUT",
        f"{dataset}/datasource",
        422,
        "DATASET_DATASOURCE_INVALID",
        json={**ROLE, "s3Region": region},
    )


def test_signature_is_that_of_the_vendors_library():
    now = dt.datetime.now(dt.UTC)
    url, body = "http://127.0.0.1:9999/", b"Action=AssumeRole&ExternalId=a%2Fb"
    ours = sign_request(url, body, region="eu-central-1", key_id="key", secret="secret", now=now)
    request = AWSRequest("POST", url, data=body, headers={"Content-Type": ours["content-type"]})
    request.context["timestamp"] = ours["x-amz-date"]
    theirs = SigV4Auth(Credentials("key", "secret"), "sts", "eu-central-1")
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    text = theirs.string_to_sign(request, theirs.canonical_request(request))
    assert ours["authorization"].endswith(f"Signature={theirs.signature(text, request)}")


def build_answer(key: str, ends: dt.datetime) -> bytes:
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        f"<Expiration>{ends:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
    ).encode()


class Service:
    """A token service that answers what it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, list[str]]] = []
        self.signed_with: list[str] = []
        self.answers: list[tuple[int, bytes]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                service.asked.append(parse_qs(body.decode()))
                service.signed_with.append(
                    self.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
                )
                status, content = service.answers.pop(0)
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def service():
    made = Service()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


@pytest.fixture
def build_sessions(service, tmp_path):
    def build(clock) -> RoleSessions:
        config = PlatformConfig(
            token=TOKEN, datasource_root=tmp_path, data_dir=tmp_path, sts_endpoint=service.url, **IDENTITY
        )
        return RoleSessions(config, clock)

    return build


A_ROLE = Role(ROLE["s3ARN"], ROLE["s3ExternalId"], ROLE["s3Region"])


def test_credentials_are_kept_and_renewed_a_quarter_of_an_hour_before_they_end(service, build_sessions):
    clock = ManualClock()
    sessions = build_sessions(clock)
    begun = dt.datetime.fromtimestamp(clock.now_s(), dt.UTC)
    for key, hours in (("first", 1), ("second", 2)):
        service.answers.append((200, build_answer(key, begun + dt.timedelta(hours=hours))))
    assert [sessions.load(A_ROLE)["access_key_id"] for _ in range(3)] == ["first"] * 3
    clock.advance(44 * 60)
    assert sessions.load(A_ROLE)["access_key_id"] == "first"
    clock.advance(2 * 60)
    assert sessions.load(A_ROLE)["access_key_id"] == "second"
    assert [asked["ExternalId"] for asked in service.asked] == [["external-id-1"]] * 2
    assert service.asked[0]["RoleArn"] == [ROLE["s3ARN"]]


def test_role_is_assumed_with_the_identity_that_took_the_place_of_the_first(service, build_sessions):
    clock = ManualClock()
    sessions = build_sessions(clock)
    begun = dt.datetime.fromtimestamp(clock.now_s(), dt.UTC)
    for hours in (1, 2):
        service.answers.append((200, build_answer("key", begun + dt.timedelta(hours=hours))))
    sessions.load(A_ROLE)
    sessions.replace_identity(key_id="next-key")
    sessions.replace_identity(secret="next-secret")
    sessions.load(A_ROLE)  # credentials that are good are kept
    clock.advance(50 * 60)
    sessions.load(A_ROLE)
    assert service.signed_with == ["server-key", "next-key"]


@pytest.mark.parametrize(
    ("status", "content", "expected", "words"),
    [
        (403, b"<Code>AccessDenied</Code><Message>x</Message>", 422, "AccessDenied"),
        (503, b"", 503, "503"),
        (200, b"no xml", 503, "cannot be read"),
        (200, b"<a/>", 503, "cannot be read"),
        (200, b"<a>" * 200_000, 503, "cannot be read"),
        (302, b"", 422, "302"),
    ],
    ids=["denied", "down", "no-xml", "empty", "endless", "redirect"],
)
def test_role_that_cannot_be_assumed_is_a_refusal(service, build_sessions, status, content, expected, words):
    service.answers.append((status, content))
    with pytest.raises(Fault) as refused:
        build_sessions(SystemClock()).load(A_ROLE)
    assert refused.value.status == expected
    assert words in refused.value.text
    assert "server-secret" not in refused.value.text
