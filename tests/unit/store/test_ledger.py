"""The ledger: a listed name is written once, found again whatever it looks like, and never forgotten."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select, text

from tests.builders import NOW_MS, add_batch, add_watch, list_names, load, url_of
from watcher.domain.models import SampleState, Via
from watcher.domain.names import can_be_stored
from watcher.store import samples, vectors
from watcher.store.tables import samples as table

ODD_NAMES = [
    "with space.jpg",
    " leading and trailing ",
    "1+1=2.png",
    "100%25 %of it%.jpg",
    "日本/写真 ①.jpg",
    "🦊.webp",
    "e\u0301.jpg",
    "\u00e9.jpg",
    ".hidden/.jpg",
    'it\'s "quoted" `so`.jpg',
    "back\\slash\\n.jpg",
    "line\nbreak\r\n.jpg",
    "tab\t.jpg",
    "\\N",
    "\\.",
    "NULL",
    "",
    "'; DROP TABLE samples; --",
    "under_score%percent.jpg",
    "UPPER.JPG",
    "upper.jpg",
    "\u200e\ufeff.jpg",
    ":name %(name)s {name} ?",
]


def record(database, watch, rows, *, via=Via.WINDOW, now_ms=NOW_MS):
    with database.write() as session:
        return samples.record_page(session, watch_id=watch.id, poll_id=1, via=via, rows=rows, now_ms=now_ms)


def count(database) -> int:
    with database.read() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def test_page_of_new_names_enters_the_ledger_as_waiting(database, watch):
    assert list_names(database, watch, ["a", "b"], via=Via.OVERLAP, now_ms=NOW_MS) == 2
    sample = load(database, watch, "a")
    assert sample.state is SampleState.WAITING
    assert sample.via is Via.OVERLAP
    assert sample.read_url == url_of("a")
    assert sample.discovered_ms == sample.available_ms == sample.changed_ms == NOW_MS
    assert (sample.batch_id, sample.remote_id, sample.attempts, sample.reason) == (None, None, 0, None)


def test_page_of_nothing_writes_nothing(database, watch):
    assert record(database, watch, []) == 0
    assert count(database) == 0


def test_page_with_known_names_counts_only_the_new_and_keeps_the_first_discovery(database, watch):
    list_names(database, watch, ["a", "b"], now_ms=NOW_MS)
    assert list_names(database, watch, ["b", "c"], via=Via.OVERLAP, now_ms=NOW_MS + 5000) == 1
    assert load(database, watch, "b").discovered_ms == NOW_MS
    assert load(database, watch, "b").via is Via.WINDOW
    assert load(database, watch, "c").discovered_ms == NOW_MS + 5000


def test_page_that_names_a_file_twice_writes_one_row(database, watch):
    rows = [("a", url_of("a", 1), None), ("b", url_of("b"), None), ("a", url_of("a", 2), None)]
    assert record(database, watch, rows) == 2
    assert count(database) == 2
    assert load(database, watch, "a").read_url in {url_of("a", 1), url_of("a", 2)}


def test_page_listed_again_refreshes_the_urls_of_unfinished_samples_only(database, watch):
    batch = add_batch(database, watch, ["done", "processing", "quarantined", "gone"])
    list_names(database, watch, ["waiting"])
    with database.write() as session:
        for name, act in (("quarantined", samples.record_quarantined), ("gone", samples.record_gone)):
            act(session, sample_id=load(database, watch, name).id, reason="r", now_ms=NOW_MS)
        session.execute(table.update().where(table.c.file_name == "done").values(state="done"))
    names = ["done", "processing", "quarantined", "gone", "waiting"]
    assert list_names(database, watch, names, version=2) == 0
    fresh = {name for name in names if load(database, watch, name).read_url == url_of(name, 2)}
    assert fresh == {"processing", "waiting"}
    assert load(database, watch, "processing").batch_id == batch.id
    assert load(database, watch, "processing").state is SampleState.PROCESSING


def test_page_with_a_reason_puts_the_sample_into_quarantine_and_never_into_a_batch(database, watch):
    record(database, watch, [("../a", "u", "the name leaves the datasource"), ("b", "u", None)])
    bad = load(database, watch, "../a")
    assert (bad.state, bad.reason) == (SampleState.QUARANTINED, "the name leaves the datasource")
    with database.read() as session:
        assert samples.count_waiting(session, watch_id=watch.id, until_ms=NOW_MS, limit=10) == 1


def test_page_listed_for_two_watches_makes_a_row_in_each_ledger(database, watch):
    other = add_watch(database, "roof")
    assert list_names(database, watch, ["a"]) == 1
    assert list_names(database, other, ["a"]) == 1
    assert load(database, watch, "a").id != load(database, other, "a").id
    list_names(database, other, ["a"], version=2)
    assert load(database, watch, "a").read_url == url_of("a", 1)


def test_pages_twice_in_one_transaction_do_not_mix(database, watch):
    with database.write() as session:
        for name in ("a", "b"):
            n = samples.record_page(
                session, watch_id=watch.id, poll_id=1, via=Via.WINDOW, rows=[(name, "u", None)], now_ms=NOW_MS
            )
            assert n == 1
    assert count(database) == 2


def test_page_whose_transaction_fails_leaves_nothing(database, watch):
    with pytest.raises(ZeroDivisionError), database.write() as session:  # noqa: PT012 - the end of the transaction is part of it
        samples.record_page(
            session, watch_id=watch.id, poll_id=1, via=Via.WINDOW, rows=[("a", "u", None)], now_ms=NOW_MS
        )
        raise ZeroDivisionError
    assert count(database) == 0
    assert list_names(database, watch, ["a"]) == 1


def test_names_of_every_odd_kind_are_kept_letter_by_letter(database, watch):
    assert list_names(database, watch, ODD_NAMES) == len(ODD_NAMES)
    assert list_names(database, watch, ODD_NAMES, version=2) == 0
    for name in ODD_NAMES:
        sample = load(database, watch, name)
        assert sample.file_name == name
        assert sample.read_url == url_of(name, 2)
    with database.read() as session:
        found = samples.load_samples_named(session, watch_id=watch.id, file_names=[*ODD_NAMES, "absent"])
    assert set(found) == set(ODD_NAMES)


@pytest.mark.scenario(number=25)
# An example finds what those before it left, as a ledger does.
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(
        st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1, max_size=60),
        min_size=1,
        max_size=20,
    )
)
@example({"\\", "\\\\", "\\t", "\t", "a\\"})
def test_names_of_any_letters_go_in_once_and_come_out_the_same(database, watch, names):
    rows = [(name, f"{name}?{name}", None) for name in names]
    known = count(database)
    new = record(database, watch, rows)
    assert count(database) == known + new
    assert record(database, watch, rows) == 0
    with database.read() as session:
        found = samples.load_samples_named(session, watch_id=watch.id, file_names=list(names))
    assert {name: sample.read_url for name, sample in found.items()} == {
        name: f"{name}?{name}" for name in names
    }


def test_names_as_long_as_a_datasource_allows_fit_beside_the_others(database, watch):
    # Random letters, since an index entry that compresses well would fit anyhow.
    rng = random.Random(1)
    longest = "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(682))
    assert can_be_stored(longest)
    assert not can_be_stored(longest + "写")
    assert list_names(database, watch, ["a", longest]) == 2
    assert load(database, watch, longest).file_name == longest
    with database.write() as session:
        row = (longest, np.zeros(2, dtype=np.float32))
        vectors.record_vectors(session, watch_id=watch.id, embedder="e" * 100, rows=[row])


def test_page_of_ten_thousand_rows_is_written_once_and_found_again(database, watch):
    names = [f"camera {n % 7}/frame {n:06d}.jpg" for n in range(10_000)]
    assert list_names(database, watch, names) == 10_000
    assert list_names(database, watch, [*names[5000:], "one more"], version=2) == 1
    assert count(database) == 10_001
    with database.read() as session:
        assert samples.count_waiting(session, watch_id=watch.id, until_ms=NOW_MS, limit=20_000) == 10_001
        assert samples.load_oldest_waiting(session, watch_id=watch.id, now_ms=NOW_MS) == NOW_MS
    assert load(database, watch, names[4999]).read_url == url_of(names[4999], 1)
    assert load(database, watch, names[5000]).read_url == url_of(names[5000], 2)


def test_urls_refreshed_by_hand_reach_unfinished_samples_only(database, watch):
    list_names(database, watch, ["a", "b"])
    with database.write() as session:
        samples.record_gone(session, sample_id=load(database, watch, "b").id, reason="r", now_ms=NOW_MS)
        samples.refresh_unfinished(
            session, watch_id=watch.id, rows=[("a", "new"), ("b", "new"), ("c", "new")]
        )
        samples.refresh_unfinished(session, watch_id=watch.id, rows=[])
    assert load(database, watch, "a").read_url == "new"
    assert load(database, watch, "b").read_url == url_of("b")
    assert count(database) == 2


def test_sample_is_found_by_its_whole_name_or_by_its_end_after_a_slash(database, watch):
    other = add_watch(database, "roof")
    list_names(database, watch, ["x/a_1.jpg", "a_1.jpg", "xa_1.jpg", "y/a%1.jpg", "y/ab1.jpg"])
    list_names(database, other, ["z/a_1.jpg"])

    def find(name, only=None):
        with database.read() as session:
            return [(w, s.file_name) for w, s in samples.find_samples(session, file_name=name, watch=only)]

    assert find("a_1.jpg", "gate") == [("gate", "a_1.jpg")]
    assert find("a_1.jpg", "roof") == [("roof", "z/a_1.jpg")]
    assert find("x/a_1.jpg") == [("gate", "x/a_1.jpg")]
    assert find("a%1.jpg") == [("gate", "y/a%1.jpg")]
    assert find("nothing") == []


@pytest.mark.parametrize("store_url", ["postgres"], indirect=True)  # which counts the rows that are read
def test_page_of_known_names_reads_their_rows_and_not_the_rest_of_the_ledger(database, watch):
    names = [f"{n:05d}.jpg" for n in range(3000)]
    list_names(database, watch, names)
    with database.write() as session:
        rows = [(name, f"{url_of(name)}&again=1", None) for name in names[:20]]
        samples.record_page(session, watch_id=watch.id, poll_id=1, via=Via.WINDOW, rows=rows, now_ms=NOW_MS)
        n_read = session.execute(
            text(
                "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'samples'"
            )
        ).scalar_one()
    assert load(database, watch, names[19]).read_url.endswith("&again=1")
    assert n_read < 200
