"""The status page, its JSON and its thumbnails: what the store knows, and nothing that signs or steals."""

from __future__ import annotations

import re

import pytest

from tests.builders import NOW_MS, NOW_S, add_batch, add_watch, claim, deliver, list_names, load
from tests.unit.ops.conftest import API_TOKEN, CONTROL_TOKEN, SIGNED_PATH, WEBP
from watcher import __version__
from watcher.domain.models import PollState, RunState
from watcher.domain.window import Window
from watcher.store import batches, duty_problems, picks, polls, runs, samples, watches
from watcher.store.duty_problems import Duty
from watcher.store.leadership import take_lead

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>.jpg"
SECRETS = ("X-Amz-Signature", "s1gnature", "s1gned", API_TOKEN, CONTROL_TOKEN)


def fill(ops, names=("a.jpg", EVIL)):
    """A watch whose first sample was picked and delivered, and whose second was set aside."""
    watch = add_watch(ops.database)
    batch = add_batch(ops.database, watch, list(names))
    first, second = (load(ops.database, watch, name) for name in names)
    run = claim(ops.database)
    deliver(ops.database, batch, location="data/selected/gate-000001.jsonl", now_ms=NOW_MS + 9000)
    with ops.database.write() as session:
        samples.record_registered(
            session, sample_id=first.id, remote_id="remote1", size_bytes=5, modified_s=NOW_S, now_ms=NOW_MS
        )
        samples.record_quarantined(session, sample_id=second.id, reason="no image: <b>", now_ms=NOW_MS)
        picks.replace_picks(session, batch_id=batch.id, rows=[(first.id, 1, {"distance": 0.5})])
        batches.record_sampling_tag(session, batch_id=batch.id, tag_id="t", tag_name="gate-000001")
        runs.postpone_run(
            session,
            run_id=run.id,
            owner="me",
            available_ms=0,
            error="the server answered 503",
            count_attempt=True,
        )
        poll = polls.create_poll(
            session, watch_id=watch.id, window=Window(NOW_S - 60, NOW_S, None), now_ms=NOW_MS
        )
        polls.finish_poll(session, poll_id=poll.id, state=PollState.FAILED, now_ms=NOW_MS, error="cut off")
        watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S - 90, now_ms=NOW_MS)
    return watch, first


def test_page_of_an_empty_store_says_that_nothing_was_reached_yet(ops):
    answer = ops.get("/")
    assert answer.status_code == 200
    assert "No watch has reached its server yet" in answer.text


def test_page_tells_why_a_watch_never_reached_its_server_and_what_is_wrong_with_others(ops):
    add_watch(ops.database)
    with ops.database.write() as session:
        for watch, duty in (("door", Duty.POLL), ("gate", Duty.POLL), ("gate", Duty.AUDIT)):
            duty_problems.record_problem(
                session,
                watch=watch,
                duty=duty,
                problem=f"<b>{watch} {duty}</b>",
                is_config=False,
                now_ms=NOW_MS,
            )
    text = ops.get("/").text
    assert "<b>door has not reached its server yet:</b> &lt;b&gt;door poll&lt;/b&gt;" in text
    assert '<span class="failing">failing</span>' in text
    assert "last poll: &lt;b&gt;gate poll" in text
    assert "<b>Last comparison:</b> &lt;b&gt;gate audit" in text
    status = ops.get("/api/v1/status").json()
    assert status["unreached"] == {"door": "<b>door poll</b>"}
    (gate,) = status["watches"]
    assert (gate["problem"], gate["audit_problem"]) == ("<b>gate poll</b>", "<b>gate audit</b>")


def test_page_shows_marks_states_picks_batches_polls_and_what_was_set_aside(ops):
    _, first = fill(ops)
    ops.expect_poll("gate", in_s=7)
    text = ops.get("/").text
    for part in (
        '<h2><a href="/watches/gate">gate</a></h2>',
        "2023-11-14 22:11:50 UTC",  # the mark
        "90 s",  # its lag
        "in 7 s",
        "<b>1</b>processing",
        "<b>1</b>quarantined",
        "<b>0</b>waiting",
        f'<img src="/thumbnails/{first.id}" alt="a.jpg"',
        "gate-000001",
        "data/selected/gate-000001.jsonl",
        "the server answered 503",
        "cut off",
        "no image: &lt;b&gt;",
    ):
        assert part in text


def test_page_escapes_whatever_a_file_name_holds(ops):
    watch, _ = fill(ops, names=(EVIL, "b.jpg"))
    with ops.database.write() as session:
        samples.record_quarantined(
            session, sample_id=load(ops.database, watch, EVIL).id, reason=EVIL, now_ms=1
        )
    text = ops.get("/").text
    assert "&lt;script&gt;alert(" in text
    assert re.findall(r"<script[^>]*>", text) == [f'<script src="/static/status.js?v={__version__}" defer>']
    assert "style=" not in text
    assert re.findall(r"<img (?!src=\"/thumbnails/\d+\" alt=\")", text) == []


def test_page_and_json_hold_no_signed_url_and_no_token(ops):
    fill(ops)
    for path in ("/", "/api/v1/status", "/metrics", "/health/ready", "/health/live"):
        answer = ops.get(path)
        for secret in SECRETS:
            assert secret not in answer.text
            assert secret not in str(answer.headers)


def test_page_may_load_nothing_from_elsewhere_and_is_not_kept(sqlite_ops):
    headers = sqlite_ops.get("/").headers
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/api/v1/status", "/thumbnails/1"])
def test_page_without_a_store_is_503_with_the_reason_but_not_its_password(ops_without_store, path):
    answer = ops_without_store.get(path)
    assert answer.status_code == 503
    assert "the store" in answer.text
    assert "5ecr3t" not in answer.text


def test_json_tells_what_the_page_shows(ops):
    fill(ops)
    ops.clock.advance(30)
    ops.expect_poll("gate", in_s=37)
    body = ops.get("/api/v1/status").json()
    (watch,) = body["watches"]
    assert body["now_ms"] == NOW_MS + 30_000
    assert (watch["name"], watch["mark_s"], watch["lag_s"]) == ("gate", NOW_S - 90, 120.0)
    assert watch["next_poll_s"] == NOW_S + 37
    assert watch["samples"] == {"waiting": 0, "processing": 1, "done": 0, "quarantined": 1, "gone": 0}
    assert watch["oldest_pending_ms"] == NOW_MS
    assert watch["picks"] == [
        {"sample_id": watch["picks"][0]["sample_id"], "file_name": "a.jpg", "rank": 1, "batch_id": 1}
    ]
    (batch,) = watch["batches"]
    assert (batch["key"], batch["state"], batch["n_samples"]) == ("gate-000001", "open", 2)
    assert batch["runs"] == [
        {
            "step": "upload",
            "state": RunState.READY.value,
            "attempt": 1,
            "error": "the server answered 503",
            "n_shards": 0,
            "n_shards_done": 0,
        }
    ]
    assert batch["manifests"] == ["data/selected/gate-000001.jsonl"]
    assert (watch["polls"][0]["state"], watch["polls"][0]["error"]) == ("failed", "cut off")
    assert watch["troubled"][0]["reason"] == "no image: <b>"


def test_json_of_a_long_history_stays_short(sqlite_ops):
    watch = add_watch(sqlite_ops.database)
    for n in range(16):
        add_batch(sqlite_ops.database, watch, [f"{n:03d}"])
    (view,) = sqlite_ops.get("/api/v1/status").json()["watches"]
    assert len(view["polls"]) == 5
    assert len(view["batches"]) == 8


def test_thumbnail_is_fetched_through_the_api_and_its_signed_url_stays_inside(ops):
    watch, first = fill(ops)
    answer = ops.get(f"/thumbnails/{first.id}")
    assert (answer.status_code, answer.content) == (200, WEBP)
    assert answer.headers["Content-Type"] == "image/webp"
    assert answer.headers["Cache-Control"] == "private, max-age=86400"
    asked, read = ops.lightly.seen
    assert asked.path == f"/v1/datasets/{watch.dataset_id}/samples/remote1/readurl"
    assert asked.query["type"] == "thumbnail"
    assert read.target == SIGNED_PATH
    for secret in SECRETS:
        assert secret not in str(answer.headers)


@pytest.mark.parametrize("which", ["unknown", "unregistered"])
def test_thumbnail_that_does_not_exist_is_404(sqlite_ops, which):
    watch = add_watch(sqlite_ops.database)
    list_names(sqlite_ops.database, watch, ["a"])
    sample_id = load(sqlite_ops.database, watch, "a").id if which == "unregistered" else 999
    assert sqlite_ops.get(f"/thumbnails/{sample_id}").status_code == 404
    assert sqlite_ops.lightly.seen == []


@pytest.mark.parametrize("path", ["/thumbnails/-1", "/thumbnails/x", "/thumbnails/1.webp", "/nothing"])
def test_path_that_leads_nowhere_is_404(sqlite_ops, path):
    assert sqlite_ops.get(path).status_code == 404


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, WEBP),
        (500, WEBP),
        (200, b"<html>no image</html>"),
        (200, b""),
        (200, b"RIFF" + b"x" * 1_000_001),
    ],
)
def test_thumbnail_the_server_does_not_give_is_502_without_secrets(sqlite_ops, status, body):
    _, first = fill(sqlite_ops)
    sqlite_ops.lightly.status, sqlite_ops.lightly.body = status, body
    answer = sqlite_ops.get(f"/thumbnails/{first.id}")
    assert answer.status_code == 502
    for secret in SECRETS:
        assert secret not in answer.text


def test_overview_of_a_standby_names_the_leader_and_that_of_the_leader_does_not(ops):
    add_watch(ops.database)
    assert "stands by" not in ops.get("/").text
    ops.role = "standby"
    assert "This replica stands by; nobody leads at present." in ops.get("/").text
    with ops.database.write() as session:
        take_lead(session, holder="watcher pod-b:1:0f", lease_ms=60_000, work_version=1)
    assert "This replica stands by; watcher pod-b:1:0f leads and polls." in ops.get("/").text
