"""Snapshots in memory and on disk behave alike; cursors are signed."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waiting import wait_for
from watcher.domain.clock import SystemClock
from watcher.platform import listings
from watcher.platform.faults import Fault
from watcher.platform.listings import FIRST, Cursor, Listings, decode_cursor, encode_cursor
from watcher.platform.secrets import Keys

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
ROWS = st.dictionaries(NAMES, st.integers(0, 5), max_size=30)


def take(kept: Listings, owner: str = "me", name: str = "a") -> str:
    return kept.take(lambda: iter([(1, name), (2, "b")]), owner=owner, use=str)[0]


# Each example makes its own files anew.
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, page=st.integers(1, 7), shards=st.integers(1, 6), on_disk=st.booleans())
def test_pages_and_shards_give_every_row_once_in_order(tmp_path: Path, rows, page, shards, on_disk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listings, "_IN_MEMORY_ROWS", -1 if on_disk else 10**6)
        kept = Listings(tmp_path, SystemClock())
        name, ranges = kept.take(
            lambda: ((second, text) for text, second in rows.items()),
            owner="me",
            use=lambda snapshot: snapshot.split(shards),
        )
        snapshot = kept.find(name)
        found = []
        for after, until in ranges:
            place, more = after, True
            while more:
                piece = snapshot.read(after=place, until=until, limit=page)
                assert len(piece.names) <= page
                found += piece.names
                place, more = piece.last, piece.more
        assert found == [text for _second, text in sorted((second, text) for text, second in rows.items())]
        kept.close()
        assert kept.find(name) is None


def test_unused_snapshots_are_forgotten_and_their_files_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "_IN_MEMORY_ROWS", 0)
    kept = Listings(tmp_path, SystemClock())
    names = [take(kept) for _ in range(70)]
    assert sum(kept.find(name) is not None for name in names) == 64
    assert len(list(tmp_path.rglob("*.sqlite"))) == 64
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_folder_is_made_only_for_a_snapshot_on_disk(tmp_path, monkeypatch):
    work_dir = tmp_path / "listings"
    kept = Listings(work_dir, SystemClock())
    take(kept)
    kept.clear_abandoned()
    assert not work_dir.exists()
    # Long names are not kept in memory either.
    monkeypatch.setattr(listings, "_IN_MEMORY_BYTES", 1000)
    take(kept, name="x" * 1000)
    assert len(list(work_dir.rglob("*.sqlite"))) == 1
    kept.close()


@pytest.mark.parametrize("on_disk", [True, False])
def test_who_holds_the_most_loses_what_they_left_unused_for_longest(tmp_path, monkeypatch, on_disk):
    monkeypatch.setattr(listings, "_IN_MEMORY_ROWS", 0 if on_disk else 10)
    kept = Listings(tmp_path, SystemClock())
    size = kept.find(take(kept)).n_bytes
    kept.close()
    monkeypatch.setattr(listings, "_MAX_BYTES", 4 * size)
    modest = take(kept, owner="modest")
    greedy = [take(kept, owner="greedy") for _ in range(3)]
    assert kept.find(greedy[0])  # used again, so the second is the one left for longest
    greedy += [take(kept, owner="greedy") for _ in range(2)]
    assert [kept.find(name) is not None for name in (modest, *greedy)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert len(list(tmp_path.rglob("*.sqlite"))) == (4 if on_disk else 0)
    # One that takes more than anybody holds is not itself what goes, or each of its pages would read all anew.
    wide = take(kept, owner="wide", name="x" * 2 * size)
    assert kept.find(wide)
    assert kept.find(greedy[0]) is None
    # What is larger than all the room is kept for the one who reads it.
    monkeypatch.setattr(listings, "_MAX_BYTES", size - 1)
    large = take(kept, owner="modest")
    assert [kept.find(name) is not None for name in (modest, *greedy, wide, large)] == [False] * 7 + [True]
    kept.close()


def test_snapshots_left_unused_go_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "_IN_MEMORY_ROWS", 0)
    monkeypatch.setattr(listings, "_SWEEP_S", 0.01)
    clock = SimpleNamespace(monotonic_s=lambda: now_s)
    now_s = 0.0
    kept = Listings(tmp_path, clock)
    old = take(kept)
    now_s = 600.0
    young = take(kept)
    now_s = 1000.0
    wait_for(lambda: len(list(tmp_path.rglob("*.sqlite"))) == 1)
    assert (kept.find(old), kept.find(young) is not None) == (None, True)
    now_s = 2000.0
    wait_for(lambda: not list(tmp_path.rglob("*.sqlite")))
    kept.close()


def test_folder_that_somebody_removed_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "_IN_MEMORY_ROWS", 0)
    kept = Listings(tmp_path, SystemClock())
    take(kept)
    for folder in tmp_path.iterdir():
        shutil.rmtree(folder)
    assert kept.find(take(kept))
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_snapshot_that_cannot_be_used_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "_IN_MEMORY_ROWS", 0)
    kept = Listings(tmp_path, SystemClock())
    with pytest.raises(ZeroDivisionError):
        kept.take(lambda: iter([(1, "a")]), owner="me", use=lambda _snapshot: 1 // 0)
    assert not list(tmp_path.rglob("*.sqlite"))
    kept.close()


def test_cursor_comes_back_and_no_other_is_taken():
    keys, others = Keys(b"1" * 32), Keys(b"2" * 32)
    cursor = Cursor("a" * 24, "digest", 1, 2, FIRST, (3, "ü"), "snapshot", "")
    text = encode_cursor(cursor, keys)
    assert decode_cursor(text, keys) == cursor
    for bad in (text + "A", text[1:], "", "=", encode_cursor(cursor, others)):
        with pytest.raises(Fault):
            decode_cursor(bad, keys)
    assert decode_cursor(text, Keys(b"2" * 32, b"1" * 32)) == cursor
