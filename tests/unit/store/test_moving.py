"""Moving a store: everything arrives, an interrupted move goes on, and what does not fit is refused."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import func, make_url, select, text

from tests.builders import NOW_MS, add_batch, add_watch, claim, list_names, open_store, run_command
from watcher import moving
from watcher.database.engine import build_database
from watcher.domain.errors import ConfigError, StoreError, StoreLockedError
from watcher.domain.models import SampleState
from watcher.leadership import Leadership
from watcher.moving import describe_place, move_store, refuse_moved, refuse_unfinished_move
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
    with pytest.raises(
        ConfigError, match=re.escape(f"moved to {describe_place(target.engine.url)} at 2023-")
    ):
        move(source, target)
    with source.write() as session:
        session.execute(text("DROP TABLE moved_to"))
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
    own = {"WATCHER_STORE__URL": str(source.engine.url), "WATCHER_DATA_DIR": str(tmp_path)}
    done = run_command("move-store", "--to", database_url, **own)
    assert done.exit_code == 0, done.stderr
    assert "samples: 55 rows" in done.stdout
    assert "set WATCHER_STORE__URL" in done.stdout
    place = describe_place(build_database(database_url).engine.url)
    for command in (
        ("poll",),
        ("pause", "gate"),
        ("move-store", "--to", database_url),
        ("backup", str(tmp_path / "b")),
    ):
        refused = run_command(*command, **own)
        assert refused.exit_code == 2
        told = " ".join(refused.stderr.split())
        assert f"the store was moved to {place} at 2" in told
        assert "`watcher move-store --take-back`" in told
    shown = run_command("status", **own)
    assert shown.exit_code == 0
    assert f"the store was moved to {place} at 2" in " ".join(shown.stderr.split())
    back = run_command("move-store", "--take-back", **own)
    assert (back.exit_code, place in back.stdout.replace("\n", "")) == (0, True), back.stderr
    assert run_command("pause", "gate", **own).exit_code == 0
    nothing = run_command("move-store", "--take-back", **own)
    assert (nothing.exit_code, "was not moved" in nothing.stderr) == (2, True)


def test_place_of_the_move_may_come_by_variable_or_file_and_not_by_both(source, tmp_path):
    own = {"WATCHER_STORE__URL": str(source.engine.url), "WATCHER_DATA_DIR": str(tmp_path)}
    (tmp_path / "target").write_text(f"sqlite:///{tmp_path / 'from-file.sqlite'}\n")
    by_file = {"WATCHER_MOVE_TO_FILE": str(tmp_path / "target")}
    by_variable = {"WATCHER_MOVE_TO": f"sqlite:///{tmp_path / 'from-variable.sqlite'}"}
    both = run_command("move-store", **own, **by_file, **by_variable)
    assert (both.exit_code, "both" in both.stderr) == (2, True)
    none = run_command("move-store", **own)
    assert (none.exit_code, "where to?" in none.stderr) == (2, True)
    done = run_command("move-store", **own, **by_file)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "from-file.sqlite").exists()
    assert run_command("move-store", "--take-back", **own, **by_file).exit_code == 0
    done = run_command("move-store", **own, **by_variable)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "from-variable.sqlite").exists()


def test_move_to_a_server_that_does_not_answer_is_one_line_without_the_password(source, tmp_path):
    done = run_command(
        "move-store",
        WATCHER_MOVE_TO="postgresql://me:secret-word@127.0.0.1:9/nonexist",
        WATCHER_STORE__URL=str(source.engine.url),
        WATCHER_DATA_DIR=str(tmp_path),
    )
    assert done.exit_code == 1, done.exception
    assert "127.0.0.1" in done.stderr
    assert "secret-word" not in done.output
    assert "Traceback" not in done.output
    refuse_moved(source)


def test_source_is_marked_with_the_place_alone_and_only_the_same_move_goes_on(
    source, target, tmp_path, monkeypatch
):
    monkeypatch.setattr(moving, "_finish", lambda _target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        move(source, target)
    monkeypatch.undo()
    with pytest.raises(
        ConfigError, match=re.escape(f"moved to {describe_place(target.engine.url)} at 2023-")
    ):
        refuse_moved(source)
    with pytest.raises(ConfigError, match="interrupted"):
        refuse_unfinished_move(target)
    other = build_database(f"sqlite:///{tmp_path / 'other.sqlite'}")
    with pytest.raises(ConfigError, match="the store was moved to"):
        move(source, other)
    other.close()
    move(source, target)
    refuse_unfinished_move(target)
    refuse_moved(target)


def test_place_is_shown_without_user_password_and_query():
    url = make_url("postgresql+psycopg://me:word@db.example.org:5433/name?password=other&sslmode=require")
    assert describe_place(url) == "postgresql://db.example.org:5433/name"
