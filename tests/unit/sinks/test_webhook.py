"""Webhooks over real HTTP: signed, in bounded parts, each with an id that never changes, sent nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time

import pytest

from tests.receivers import Answer
from tests.unit.sinks.conftest import DELIVERY_ID, Batch
from watcher.domain.delivery import WebhookRules
from watcher.domain.errors import (
    ApiException,
    ConfigError,
    DeliveryRefusedError,
    NotSentError,
    RedirectRefusedError,
    UnknownOutcomeError,
)
from watcher.sinks.webhook import WebhookSink, decode_secret

KEY = b"a key of thirty-two bytes or so."
SECRET = "whsec_" + base64.b64encode(KEY).decode()


def build(parts, url, **changes) -> WebhookSink:
    return WebhookSink(WebhookRules(url=url, secret=SECRET, **{"timeout_s": 5.0, **changes}), parts)


def verify(got, key: bytes = KEY, tolerance_s: int = 300) -> None:
    """As `docs/pipeline.md` tells a receiver to do it."""
    signed = b".".join(
        [got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.body]
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    version, _, signature = got.headers["webhook-signature"].partition(",")
    assert version == "v1"
    assert hmac.compare_digest(signature, expected)
    assert abs(time.time() - int(got.headers["webhook-timestamp"])) <= tolerance_s


def test_webhook_is_signed_and_holds_the_picks(parts, receiver):
    receipt = build(parts, f"{receiver.url}?token=t0ken", key_id="2026").deliver(Batch(["a", "ü"]).handover())
    (got,) = receiver.got
    verify(got)
    assert got.path == "/hook?token=t0ken"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-key-id"] == "2026"
    assert got.headers["webhook-id"] == f"{DELIVERY_ID}.1"
    body = got.json
    picks = body.pop("picks")
    assert body == {
        "type": "picks.delivered",
        "delivery_id": DELIVERY_ID,
        "part": 1,
        "n_parts": 1,
        "n_picks": 2,
        "watch": "gate",
        "dataset_id": "d",
        "batch": "gate-000001",
        "tag": "gate-000001",
    }
    assert [(pick["file_name"], pick["rank"], pick["read_url"]) for pick in picks] == [
        ("a", 1, "https://bucket.example.com/1?sig=1"),
        ("ü", 2, "https://bucket.example.com/2?sig=1"),
    ]
    assert receipt.location == receiver.url.removesuffix("/hook")


def test_signature_does_not_fit_another_body_or_key(parts, receiver):
    build(parts, receiver.url).deliver(Batch(["a"]).handover())
    (got,) = receiver.got
    with pytest.raises(AssertionError):
        verify(got, b"another key")
    with pytest.raises(AssertionError):
        verify(type(got)(got.method, got.path, got.headers, got.body + b" "))


def test_many_picks_come_in_parts_and_a_repeat_sends_only_what_is_not_confirmed(parts, receiver):
    names = [str(number) for number in range(25)]
    batch = Batch(names)
    receiver.answers = [Answer(), Answer(), Answer(500)]
    with pytest.raises(ApiException):
        build(parts, receiver.url, max_picks=10).deliver(batch.handover())
    # Somebody changes the size of parts; the ids must still mean the same picks.
    build(parts, receiver.url, max_picks=4).deliver(batch.handover())
    assert [got.headers["webhook-id"] for got in receiver.got] == [
        f"{DELIVERY_ID}.{number}" for number in (1, 2, 3, 3)
    ]
    assert receiver.got[2].json == receiver.got[3].json
    parts_got = {got.headers["webhook-id"]: got.json for got in receiver.got}
    assert [pick["file_name"] for body in parts_got.values() for pick in body["picks"]] == names
    assert {body["n_parts"] for body in parts_got.values()} == {3}


def test_no_picks_are_no_request(parts, receiver):
    build(parts, receiver.url).deliver(Batch([]).handover())
    assert receiver.got == []


def test_answer_that_comes_late_is_an_unknown_outcome_repeated_with_the_same_id(parts, receiver):
    late = threading.Event()
    receiver.answers = [Answer(wait=lambda: late.wait(20))]
    batch = Batch(["a"])
    with pytest.raises(UnknownOutcomeError):
        build(parts, receiver.url, timeout_s=0.2).deliver(batch.handover())
    late.set()
    build(parts, receiver.url).deliver(batch.handover())
    first, second = receiver.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize("status", [400, 401, 404, 413, 429, 500, 503])
def test_failure_is_an_error_with_its_status_and_wait(parts, receiver, status):
    receiver.answers = [Answer(status, {"Retry-After": "7"}, b"see https://x.example.com/?sig=s1gned")]
    with pytest.raises(ApiException, match=rf"part 1 of 1: the server answered {status}") as failed:
        build(parts, receiver.url).deliver(Batch(["a"]).handover())
    assert failed.value.retry_after_s == 7
    assert "s1gned" not in str(failed.value)


def test_receiver_that_is_gone_refuses_for_good(parts, receiver):
    receiver.answers = [Answer(410)]
    with pytest.raises(
        DeliveryRefusedError,
        match=r"gone for good \(410\): set another URL, then `watcher replay gate`;",
    ):
        build(parts, receiver.url).deliver(Batch(["a"]).handover())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_named_and_not_followed(parts, receiver, status):
    elsewhere = f"{receiver.url}/elsewhere?secret=s3cret"
    receiver.answers = [Answer(status, {"Location": elsewhere})]
    with pytest.raises(RedirectRefusedError, match="redirects are not followed") as failed:
        build(parts, receiver.url).deliver(Batch(["a"]).handover())
    assert len(receiver.got) == 1
    assert receiver.url.removesuffix("/hook") in str(failed.value)
    assert "s3cret" not in str(failed.value)
    assert failed.value.retryable


def test_receiver_that_is_down_is_named_by_its_host_alone(parts, free_port):
    with pytest.raises(NotSentError, match=rf"webhook http://127.0.0.1:{free_port}") as failed:
        build(parts, f"http://127.0.0.1:{free_port}/services/T0KEN?sig=s1gned").deliver(
            Batch(["a"]).handover()
        )
    assert "T0KEN" not in str(failed.value)
    assert "s1gned" not in str(failed.value)


def test_secret_repeated_by_the_receiver_is_hidden(parts, receiver):
    receiver.answers = [Answer(500, body=f"I do not like {SECRET}".encode())]
    with pytest.raises(ApiException) as failed:
        build(parts, receiver.url).deliver(Batch(["a"]).handover())
    assert SECRET not in str(failed.value)


def test_secret_is_base64_behind_its_prefix_and_any_text_without():
    assert decode_secret(SECRET) == KEY
    assert decode_secret("just a text") == b"just a text"
    with pytest.raises(ConfigError, match="no base64"):
        decode_secret("whsec_?")
