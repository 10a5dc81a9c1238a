"""Alive while every loop moves; ready while the store and the server can be used."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tests.builders import ManualClock
from watcher.domain.errors import StoreUnavailableError
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.store import SCHEMA


def test_live_while_every_loop_moves_is_ok(sqlite_ops):
    sqlite_ops.heartbeats.expect("scheduler", within_s=60)
    sqlite_ops.heartbeats.expect("worker-0", within_s=900)
    sqlite_ops.clock.advance(60)
    answer = sqlite_ops.get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.scenario(number=16)
def test_live_when_a_loop_stalls_is_503_with_its_name_until_it_moves_again(sqlite_ops):
    sqlite_ops.heartbeats.expect("scheduler", within_s=60)
    sqlite_ops.heartbeats.expect("worker-0", within_s=900)
    sqlite_ops.clock.advance(61.04)
    answer = sqlite_ops.get("/health/live")
    assert answer.status_code == 503
    assert answer.json() == {"status": "stalled", "loops": {"scheduler": 61.0}}
    assert "<b>Stalled:</b> scheduler has not moved for 61 s" in sqlite_ops.get("/").text
    sqlite_ops.heartbeats.beat("scheduler")
    assert sqlite_ops.get("/health/live").status_code == 200
    assert "Stalled" not in sqlite_ops.get("/").text


def test_live_does_not_ask_the_store(ops_without_store):
    assert ops_without_store.get("/health/live").status_code == 200


def test_heartbeat_of_a_loop_nobody_expects_is_ignored():
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    heartbeats.beat("foreground")
    clock.advance(1e6)
    assert heartbeats.find_stalled() == {}


def test_heartbeats_of_one_loop_do_not_stand_for_another():
    clock = ManualClock()
    heartbeats = Heartbeats(clock)
    heartbeats.expect("a", within_s=10)
    heartbeats.expect("b", within_s=10)
    clock.advance(8)
    heartbeats.beat("a")
    clock.advance(8)
    assert heartbeats.find_stalled() == {"b": 16}


def test_ready_with_store_and_server_is_ok(ops):
    ops.accept_token()
    answer = ops.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "role": "leader"})


def test_ready_before_the_first_answer_of_the_server_is_503(sqlite_ops):
    answer = sqlite_ops.get("/health/ready")
    assert answer.status_code == 503
    problems = {"server": "no answer of the server yet"}
    assert answer.json() == {"status": "not ready", "role": "leader", "problems": problems}


def test_ready_after_a_refused_token_is_503_until_it_is_accepted(sqlite_ops):
    sqlite_ops.accept_token()
    sqlite_ops.clock.advance(1)
    sqlite_ops.access.observe(endpoint="GET /v1/datasets/{datasetId}", code="401")
    answer = sqlite_ops.get("/health/ready")
    assert answer.status_code == 503
    assert "check LIGHTLY_TOKEN" in answer.json()["problems"]["credentials"]
    assert "The server refuses the token" in sqlite_ops.get("/").text
    sqlite_ops.clock.advance(1)
    sqlite_ops.accept_token()
    assert sqlite_ops.get("/health/ready").status_code == 200


def test_ready_while_nothing_can_be_written_is_503_with_the_reason_until_a_write_succeeds(sqlite_ops):
    sqlite_ops.accept_token()
    with pytest.raises(StoreUnavailableError), sqlite_ops.database.write():
        raise StoreUnavailableError("the disk is full")
    answer = sqlite_ops.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["problems"] == {"store": "the disk is full"}
    with sqlite_ops.database.write():
        pass
    assert sqlite_ops.get("/health/ready").status_code == 200


def test_ready_without_a_store_is_503_with_the_reason_but_not_its_password(ops_without_store):
    ops_without_store.accept_token()
    answer = ops_without_store.get("/health/ready")
    assert answer.status_code == 503
    assert set(answer.json()["problems"]) == {"store"}
    assert "5ecr3t" not in answer.text


def test_ready_with_a_schema_of_another_release_is_503_with_the_command(ops):
    ops.accept_token()
    with ops.database.write() as session:
        session.execute(text(f"DELETE FROM {SCHEMA.version_table}"))
    answer = ops.get("/health/ready")
    assert answer.status_code == 503
    assert "run `watcher migrate`" in answer.json()["problems"]["store"]


@pytest.mark.parametrize(
    ("answers", "is_refused"),
    [
        ([], False),
        (["200"], False),
        (["401"], True),
        (["200", "401"], True),
        (["401", "204"], False),
        (["401", "500"], True),
        (["401", "error"], True),
        (["200", "403"], False),
        (["200", "404"], False),
    ],
)
def test_access_is_what_the_newest_word_of_the_server_on_the_token_was(answers, is_refused):
    clock = ManualClock()
    access = AccessWatch(clock)
    for code in answers:
        clock.advance(1)
        access.observe(endpoint="GET /v1/datasets", code=code)
    assert access.get().is_refused is is_refused


def test_access_refused_by_a_signed_url_says_nothing_of_the_token():
    access = AccessWatch(ManualClock())
    access.observe(endpoint="GET read-url", code="401")
    assert access.get().refused_s is None


def test_poll_that_hangs_is_seen_while_others_go_on_and_forgotten_when_it_ends(sqlite_ops):
    sqlite_ops.heartbeats.expect("scheduler", within_s=60)
    with sqlite_ops.heartbeats.watching("poll", "gate", within_s=30):
        with sqlite_ops.heartbeats.watching("poll", "roof", within_s=30) as beat_roof:
            sqlite_ops.clock.advance(20)
            sqlite_ops.heartbeats.beat("scheduler")
            beat_roof()
            sqlite_ops.clock.advance(20)
            answer = sqlite_ops.get("/health/live")
        assert answer.status_code == 503
        assert [loop.rsplit("-", 1)[0] for loop in answer.json()["loops"]] == ["poll-gate"]
    assert sqlite_ops.get("/health/live").status_code == 200


def test_listing_that_is_slow_but_moves_is_alive(sqlite_ops):
    with sqlite_ops.heartbeats.watching("poll", "gate", within_s=30) as beat:
        for _page in range(10):
            sqlite_ops.clock.advance(29)
            assert sqlite_ops.get("/health/live").status_code == 200
            beat()
