"""Snapshots in memory and on disk behave alike; cursors are signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watcher.domain.clock import SystemClock
from watcher.platform import listings
from watcher.platform.faults import Fault
from watcher.platform.listings import FIRST, Cursor, Listings, decode_cursor, encode_cursor
from watcher.platform.secrets import Keys

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
ROWS = st.dictionaries(NAMES, st.integers(0, 5), max_size=30)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, page=st.integers(1, 7), shards=st.integers(1, 6), on_disk=st.booleans())
def test_pages_and_shards_give_every_row_once_in_order(tmp_path: Path, rows, page, shards, on_disk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listings, "_IN_MEMORY_ROWS", -1 if on_disk else 10**6)
        kept = Listings(tmp_path, SystemClock())
        name, snapshot = kept.take(lambda: ((second, text) for text, second in rows.items()))
        assert kept.find(name) is snapshot
        found = []
        for after, until in snapshot.split(shards):
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
    names = [kept.take(lambda: iter([(1, "a"), (2, "b")]))[0] for _ in range(70)]
    assert sum(kept.find(name) is not None for name in names) == 64
    assert len(list(tmp_path.rglob("*.sqlite"))) == 64
    kept.close()
    assert list(tmp_path.iterdir()) == []


def test_cursor_comes_back_and_no_other_is_taken():
    keys, others = Keys(b"1" * 32), Keys(b"2" * 32)
    cursor = Cursor("a" * 24, "digest", 1, 2, FIRST, (3, "ü"), "snapshot", "")
    text = encode_cursor(cursor, keys)
    assert decode_cursor(text, keys) == cursor
    for bad in (text + "A", text[1:], "", "=", encode_cursor(cursor, others)):
        with pytest.raises(Fault):
            decode_cursor(bad, keys)
    assert decode_cursor(text, Keys(b"2" * 32, b"1" * 32)) == cursor
