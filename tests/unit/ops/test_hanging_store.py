"""A store that hangs: pages and API say so within their limit, hold few threads, and recover by themselves."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
from sqlalchemy import event, text

from tests.builders import add_watch
from tests.unit.ops.conftest import CONTROL_TOKEN
from tests.waiting import wait_for

LIMIT_S = 0.15
READERS = (
    "/api/v1/status",
    "/api/v1/watches/gate",
    "/api/v1/failures",
    "/api/v1/log",
    "/api/v1/files?name=a",
)
PAGES = ("/", "/watches/gate", "/files?name=a", "/log", "/thumbnails/1")


def find_waiting():
    return [thread for thread in threading.enumerate() if thread.name == "the store"]


@pytest.fixture
def slow_ops(store_url, build_ops):
    made = build_ops(store_url, store_limit_s=LIMIT_S)
    add_watch(made.database)
    made.accept_token()
    yield made
    wait_for(lambda: not find_waiting(), what="the calls that hung have ended")


@contextmanager
def hanging(database) -> Iterator[None]:
    """Every statement hangs: on Postgres for a lock of another, on SQLite, whose readers wait for none, in the driver."""
    if not database.is_sqlite:
        with database.engine.connect() as other:
            names = other.execute(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            ).scalars()
            tables = ", ".join(name for name in names if not name.startswith("pg_"))
            other.execute(text(f"LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE"))
            yield
            other.rollback()
        return
    goes_on = threading.Event()

    def wait(*_: object) -> None:
        assert goes_on.wait(60)

    event.listen(database.engine, "before_cursor_execute", wait)
    try:
        yield
    finally:
        goes_on.set()
        event.remove(database.engine, "before_cursor_execute", wait)


def is_refused(answer):
    return answer.status_code == 503 and "did not answer within" in answer.text


def answers(ops, path):
    return ops.get(path).status_code == 200


def test_every_reader_says_within_its_limit_that_the_store_hangs_and_answers_again_after_it(slow_ops):
    with hanging(slow_ops.database):
        for path in READERS:
            answer = slow_ops.get(path)
            assert is_refused(answer), path
            assert answer.json()["code"] == "STORE_UNAVAILABLE"
        for path in PAGES:
            assert is_refused(slow_ops.get(path)), path
        assert "data-refresh" in slow_ops.get("/").text  # an open page finds the store again by itself
        assert slow_ops.get("/health/live").status_code == 200
        ready = slow_ops.get("/health/ready")
        assert ready.status_code == 503
        assert f"did not answer within {LIMIT_S} s" in ready.json()["problems"]["store"]
    for path in ("/api/v1/status", "/", "/health/ready"):
        wait_for(partial(answers, slow_ops, path), what=f"{path} answers again")


def test_many_who_ask_a_store_that_hangs_hold_few_threads_and_the_live_endpoint_answers(slow_ops):
    before = threading.active_count()
    with hanging(slow_ops.database), ThreadPoolExecutor(50) as pool:
        asked = [pool.submit(slow_ops.get, "/api/v1/status") for _ in range(50)]
        assert slow_ops.get("/health/live").status_code == 200
        assert all(is_refused(one.result()) for one in asked)
        assert len(find_waiting()) <= 16
    assert threading.active_count() - before < 120
    wait_for(partial(answers, slow_ops, "/api/v1/status"), what="the status is told again")


def test_change_that_hangs_says_that_it_may_still_be_carried_out(slow_ops):
    with hanging(slow_ops.database):
        answer = slow_ops.change("gate", "pause", token=CONTROL_TOKEN)
        assert is_refused(answer)
        assert "may still be carried out" in answer.json()["error"]
