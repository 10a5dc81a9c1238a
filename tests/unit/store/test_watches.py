"""Watches: one ledger a dataset, never mixed with another's."""

from __future__ import annotations

import pytest

from tests.builders import NOW_MS, add_watch
from watcher.domain.errors import StoreError
from watcher.store import watches

SERVER = "https://api.example.com"


def ensure(database, name="gate", server=SERVER, dataset_id="d1"):
    with database.write() as session:
        return watches.ensure_watch(session, name=name, server=server, dataset_id=dataset_id, now_ms=NOW_MS)


def test_watch_that_is_new_has_no_marks(database):
    watch = ensure(database)
    assert (watch.name, watch.server, watch.dataset_id) == ("gate", SERVER, "d1")
    assert (watch.mark_s, watch.remote_mark_s, watch.last_polled_ms) == (None, None, None)


def test_watch_asked_for_again_is_the_same_row_with_its_mark(database):
    first = ensure(database)
    with database.write() as session:
        watches.update_mark(session, watch_id=first.id, mark_s=1_700_000_000, now_ms=NOW_MS + 5)
        watches.update_remote_mark(session, watch_id=first.id, remote_mark_s=1_699_999_999)
    again = ensure(database)
    assert again.id == first.id
    assert (again.mark_s, again.remote_mark_s) == (1_700_000_000, 1_699_999_999)
    assert again.last_polled_ms == NOW_MS + 5


@pytest.mark.parametrize(("server", "dataset_id"), [(SERVER, "d2"), ("https://other.example.com", "d1")])
def test_watch_that_leads_to_another_dataset_or_server_is_refused_with_both(database, server, dataset_id):
    ensure(database)
    with pytest.raises(StoreError) as caught:
        ensure(database, server=server, dataset_id=dataset_id)
    text = str(caught.value)
    assert f"dataset d1 at {SERVER}" in text
    assert f"dataset {dataset_id} at {server}" in text
    assert "another name or another store" in text


def test_watch_of_a_dataset_whose_ledger_has_another_name_is_refused_with_that_name(database):
    ensure(database)
    with pytest.raises(StoreError, match="whose ledger is kept under the name 'gate'"):
        ensure(database, name="door")
    with database.read() as session:
        assert [watch.name for watch in watches.load_watches(session)] == ["gate"]


def test_watches_of_the_same_dataset_id_on_two_servers_are_two(database):
    first = ensure(database)
    second = ensure(database, name="door", server="https://other.example.com")
    assert first.id != second.id


def test_watches_are_found_by_name_and_by_id_and_listed_by_name(database):
    roof, gate = add_watch(database, "roof"), add_watch(database, "gate")
    with database.read() as session:
        assert watches.load_watches(session) == [gate, roof]
        assert watches.load_watch(session, name="roof") == roof
        assert watches.load_watch(session, name="nothing") is None
        assert watches.load_watch_by_id(session, watch_id=gate.id) == gate


def test_mark_of_one_watch_moves_no_other(database):
    roof, gate = add_watch(database, "roof"), add_watch(database, "gate")
    with database.write() as session:
        watches.update_mark(session, watch_id=roof.id, mark_s=5, now_ms=NOW_MS)
    with database.read() as session:
        assert watches.load_watch(session, name="gate") == gate


def test_mark_beyond_thirty_two_bits_is_kept(database):
    watch = ensure(database)
    with database.write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=2**40, now_ms=2**50)
    with database.read() as session:
        kept = watches.load_watch(session, name="gate")
    assert (kept.mark_s, kept.last_polled_ms) == (2**40, 2**50)
