"""One row a server says when the next request is due; Postgres only."""

from __future__ import annotations

import pytest
from sqlalchemy import select, update

from watcher.database.engine import build_database
from watcher.database.schema import upgrade_schema
from watcher.store import SCHEMA
from watcher.store.request_rates import reserve_places
from watcher.store.tables import request_rates

GAP_US = 10_000_000


@pytest.fixture
def database(postgres_url):
    opened = build_database(postgres_url)
    upgrade_schema(opened, SCHEMA)
    yield opened
    opened.close()


def reserve(database, n, *, server="http://a:80", burst_us=0) -> int:
    with database.write() as session:
        return reserve_places(session, server=server, n=n, gap_us=GAP_US, burst_us=burst_us)


def test_places_follow_each_other_by_server(database):
    assert -100_000 < reserve(database, 3) <= 0
    # Slow machines are late, never early.
    assert 25_000_000 < reserve(database, 2) <= 30_000_000
    assert 45_000_000 < reserve(database, 250) <= 50_000_000
    assert -100_000 < reserve(database, 1, server="http://b:80") <= 0


def test_pause_counts_only_as_far_back_as_allowed(database):
    reserve(database, 1)
    with database.write() as session:
        session.execute(update(request_rates).values(due_us=1))
    assert -6_000_000 <= reserve(database, 1, burst_us=5_000_000) <= -5_000_000


def test_row_of_a_clock_that_was_turned_back_does_not_hold_everybody_up(database):
    reserve(database, 1)
    with database.write() as session:
        due_us = session.execute(select(request_rates.c.due_us)).scalar_one()
        session.execute(update(request_rates).values(due_us=due_us + 10**12))
    assert reserve(database, 1) <= 0
