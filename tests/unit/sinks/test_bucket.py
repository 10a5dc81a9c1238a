"""Manifests in a bucket, over S3's own protocol against a server of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.buckets import SECRET, Bucket, open_bucket
from tests.unit.sinks.conftest import Batch
from watcher.domain.delivery import ManifestRules
from watcher.domain.errors import StoreUnavailableError
from watcher.sinks.manifest import ManifestSink


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with open_bucket() as opened:
        for name, value in opened.variables.items():
            monkeypatch.setenv(name, value)
        yield opened


def test_manifest_appears_in_the_bucket_and_takes_the_place_of_an_earlier_one(bucket, parts):
    sink = ManifestSink(ManifestRules(location=f"s3://{bucket.name}/for labelling/"), parts)
    location = sink.deliver(Batch(["a+b %25.jpg", "b"]).handover()).location
    assert location == f"s3://{bucket.name}/for labelling/gate-000001.jsonl"
    sink.deliver(Batch(["a+b %25.jpg", "b"]).handover())
    ((key, body),) = bucket.read_all().items()
    assert key == "for labelling/gate-000001.jsonl"
    assert [json.loads(text)["file_name"] for text in body.splitlines()] == ["a+b %25.jpg", "b"]
    assert list(parts.work_dir.iterdir()) == []


def test_manifest_of_other_picks_in_the_bucket_is_left_alone(bucket, parts):
    sink = ManifestSink(ManifestRules(location=f"s3://{bucket.name}/for labelling"), parts)
    sink.deliver(Batch(["old"]).handover())
    assert sink.deliver(Batch(["new"]).handover()).location.endswith("/gate-000001-2.jsonl")
    held = {key: json.loads(body)["file_name"] for key, body in bucket.read_all().items()}
    assert held == {
        "for labelling/gate-000001.jsonl": "old",
        "for labelling/gate-000001-2.jsonl": "new",
    }


def test_manifest_that_cannot_be_finished_never_reaches_the_bucket(bucket, parts):
    sink = ManifestSink(ManifestRules(location=f"s3://{bucket.name}"), parts)
    with pytest.raises(RuntimeError):
        sink.deliver(Batch([str(number) for number in range(600)], fail_after=500).handover())
    assert bucket.read_all() == {}
    assert list(parts.work_dir.iterdir()) == []


def test_bucket_that_is_not_there_is_named_and_tried_again(bucket, parts):
    sink = ManifestSink(ManifestRules(location="s3://absent/x"), parts)
    with pytest.raises(
        StoreUnavailableError, match=r"s3://absent/x/gate-000001.jsonl cannot be written"
    ) as failed:
        sink.deliver(Batch(["a"]).handover())
    assert SECRET not in str(failed.value)


def test_manifest_appears_in_a_bucket_of_google(bucket, parts, monkeypatch, tmp_path):
    """Over the part of Google's XML interface that is the same as S3's; the double knows no tokens of Google's."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "private_key": key.decode(),
        "private_key_id": "i",
        "client_email": "e",
        "gcs_base_url": bucket.variables["AWS_ENDPOINT"],
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    sink = ManifestSink(ManifestRules(location=f"gs://{bucket.name}/for labelling/"), parts)
    sink.deliver(Batch(["a+b %25.jpg", "b"]).handover())
    location = sink.deliver(Batch(["a+b %25.jpg", "b"]).handover()).location
    assert location == f"gs://{bucket.name}/for labelling/gate-000001.jsonl"
    ((key, body),) = bucket.read_all().items()
    assert key == "for labelling/gate-000001.jsonl"
    assert [json.loads(text)["file_name"] for text in body.splitlines()] == ["a+b %25.jpg", "b"]
    absent = ManifestSink(ManifestRules(location="gs://absent-bucket/x"), parts)
    with pytest.raises(
        StoreUnavailableError, match=r"gs://absent-bucket/x/gate-000001.jsonl cannot be written"
    ):
        absent.deliver(Batch(["a"]).handover())
