"""Moving a store: everything arrives, an interrupted move goes on, and what does not fit is refused."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select, text

from tests.builders import NOW_MS, add_batch, add_watch, claim, list_names, open_store, run_command
from watcher import moving
from watcher.database.engine import build_database
from watcher.domain.errors import ConfigError, StoreError, StoreLockedError
from watcher.domain.models import SampleState
from watcher.leadership import Leadership
from watcher.moving import move_store, refuse_unfinished_move
from watcher.store import counts, runs, vectors
from watcher.store.tables import metadata, samples


@pytest.fixture
def source(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'old.sqlite'}") as database:
        watch = add_watch(database)
        add_batch(database, watch, [f"a'\t\\{n}\n" for n in range(40)])
        list_names(database, watch, [f"ü{n}" for n in range(15)])
        with database.write() as session:
            vectors.record_vectors(
                session, watch_id=watch.id, embedder="e", rows=[(f"ü{n}", _vector(n)) for n in range(15)]
            )
        run = claim(database)
        with database.write() as session:
            runs.end_run(
                session,
                run_id=run.id,
                owner="me",
                state="done",
                now_ms=NOW_MS,
                result={"n": 1},
                error=None,
            )
        yield database


def _vector(n):
    import numpy as np

    return np.full(4, n, dtype=np.float32)


@pytest.fixture
def target(database_url):
    database = build_database(database_url)
    yield database
    database.close()


def move(source, target):
    return move_store(source, target, now_ms=NOW_MS, say=lambda _line: None)


def rows_of(database):
    with database.read() as session:
        return {
            table.name: sorted(map(repr, session.execute(select(table)).all()))
            for table in metadata.sorted_tables
            if table.name not in {"leadership", "processes", "sample_counts", "dark_counts"}
        }


def test_everything_arrives_and_the_counts_and_the_next_ids_go_on(source, target):
    moved = {table.name: table.n_rows for table in move(source, target)}
    assert (moved["samples"], moved["vectors"], moved["watches"]) == (55, 15, 1)
    assert rows_of(target) == rows_of(source)
    with target.read() as session:
        assert counts.load_counts(session)["gate", SampleState.WAITING] == 15
    watch = add_watch(target)
    assert list_names(target, watch, ["new", "ü1"]) == 1
    with target.read() as session:
        assert session.execute(select(func.max(samples.c.id))).scalar_one() == 56
    refuse_unfinished_move(target)


def test_interrupted_move_goes_on_where_it_was(source, target, monkeypatch):
    monkeypatch.setattr(moving, "_PART", 7)
    inserted = []
    real = moving._insert

    def insert(session, table, rows):
        if [name for name, _ in inserted].count("samples") == 3:
            raise KeyboardInterrupt
        real(session, table, rows)
        inserted.append((table.name, len(rows)))

    monkeypatch.setattr(moving, "_insert", insert)
    with pytest.raises(KeyboardInterrupt):
        move(source, target)
    assert inserted[-1][0] == "samples"
    with pytest.raises(ConfigError, match="a move of another store into this database was interrupted"):
        refuse_unfinished_move(target)
    n_before = sum(n for name, n in inserted if name == "samples")
    monkeypatch.setattr(moving, "_insert", real)
    seen = []
    monkeypatch.setattr(
        moving,
        "_insert",
        lambda session, table, rows: (seen.append((table.name, len(rows))), real(session, table, rows)),
    )
    move(source, target)
    assert sum(n for name, n in seen if name == "samples") == 55 - n_before
    assert "watches" not in {name for name, _ in seen}
    assert rows_of(target) == rows_of(source)


def test_source_that_changed_between_two_attempts_is_noticed(source, target, monkeypatch):
    real = moving._finish
    monkeypatch.setattr(moving, "_finish", lambda _target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        move(source, target)
    with source.write() as session:
        session.execute(text("UPDATE samples SET attempts = 7 WHERE id = 3"))
    monkeypatch.setattr(moving, "_finish", real)
    with pytest.raises(StoreError, match="'samples' differs after the move: 55 rows"):
        move(source, target)


def test_move_into_a_store_that_holds_rows_or_into_itself_is_refused(source, target):
    with pytest.raises(ConfigError, match="the same database"):
        move(source, source)
    move(source, target)
    before = rows_of(target)
    with pytest.raises(ConfigError, match="the target is not empty"):
        move(source, target)
    assert rows_of(target) == before


def test_move_of_a_store_with_a_daemon_is_refused(source, target):
    other = build_database(str(source.engine.url))
    daemon = Leadership(other)
    daemon.acquire()
    with pytest.raises(StoreLockedError):
        move(source, target)
    daemon.release()
    other.close()


def test_command_moves_and_tells_what_to_set(source, database_url, tmp_path):
    done = run_command(
        "move-store",
        "--to",
        database_url,
        WATCHER_STORE__URL=str(source.engine.url),
        WATCHER_DATA_DIR=str(tmp_path),
    )
    assert done.exit_code == 0, done.stderr
    assert "samples: 55 rows" in done.stdout
    assert "set WATCHER_STORE__URL" in done.stdout
