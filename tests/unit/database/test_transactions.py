"""What a transaction promises, the same on SQLite and Postgres."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from watcher.database import engine as database_module
from watcher.database.engine import Database, build_database
from watcher.domain.errors import StoreUnavailableError


@pytest.fixture
def database(database_url):
    built = build_database(database_url)
    with built.write() as session:
        session.execute(text("CREATE TABLE parent (id int PRIMARY KEY)"))
        session.execute(text("CREATE TABLE child (parent_id int NOT NULL REFERENCES parent (id), note text)"))
    yield built
    built.close()


@pytest.fixture
def sqlite_database(sqlite_url):
    built = build_database(sqlite_url)
    yield built
    built.close()


def count_parents(database: Database) -> int:
    with database.read() as session:
        return session.execute(text("SELECT count(*) FROM parent")).scalar_one()


def add_parent(database: Database, parent_id: int) -> None:
    with database.write() as session:
        session.execute(text("INSERT INTO parent VALUES (:id)"), {"id": parent_id})


def test_write_that_ends_is_seen_by_a_second_engine(database, database_url):
    add_parent(database, 1)
    other = build_database(database_url)
    assert count_parents(other) == 1
    other.close()


def test_write_whose_block_raises_leaves_nothing(database):
    with pytest.raises(ZeroDivisionError), database.write() as session:  # noqa: PT012 - the end of the transaction is part of it
        session.execute(text("INSERT INTO parent VALUES (1)"))
        raise ZeroDivisionError
    assert count_parents(database) == 0


def test_read_that_writes_by_mistake_leaves_nothing(database):
    with database.read() as session:
        session.execute(text("INSERT INTO parent VALUES (1)"))
    assert count_parents(database) == 0


def test_write_of_a_child_without_parent_is_refused_as_the_programming_error_it_is(database):
    with pytest.raises(IntegrityError, match=r"(?i)foreign key"), database.write() as session:
        session.execute(text("INSERT INTO child VALUES (7, 'x')"))


def test_write_refused_by_the_database_does_not_quote_the_values(database):
    secret = {"id": 7, "note": "https://host/a.jpg?signature=abc"}
    with pytest.raises(IntegrityError) as caught, database.write() as session:
        session.execute(text("INSERT INTO child VALUES (:id, :note)"), secret)
    assert "signature" not in str(caught.value)


def test_read_beside_an_open_write_sees_the_state_before_it_and_does_not_wait(database):
    with database.write() as session:
        session.execute(text("INSERT INTO parent VALUES (1)"))
        assert count_parents(database) == 0
    assert count_parents(database) == 1


def test_writers_side_by_side_lose_no_increment(database):
    add_parent(database, 0)
    lock = "" if database.is_sqlite else " FOR UPDATE"
    errors: list[BaseException] = []

    def increment() -> None:
        try:
            for _ in range(25):
                with database.write() as session:
                    value = session.execute(text(f"SELECT id FROM parent{lock}")).scalar_one()
                    session.execute(text("UPDATE parent SET id = :value"), {"value": value + 1})
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as session:
        assert session.execute(text("SELECT id FROM parent")).scalar_one() == 100


def test_write_lock_of_sqlite_is_taken_at_the_start_so_the_second_writer_waits_there(sqlite_database):
    order: list[str] = []
    first_is_in = threading.Event()

    def second() -> None:
        first_is_in.wait(10)
        with sqlite_database.write():
            order.append("second in")

    thread = threading.Thread(target=second)
    thread.start()
    with sqlite_database.write():
        first_is_in.set()
        thread.join(0.3)
        order.append("first out")
    thread.join(10)
    assert order == ["first out", "second in"]


def test_write_of_sqlite_locked_by_another_for_too_long_says_so(sqlite_url, monkeypatch):
    monkeypatch.setattr(database_module, "_BUSY_TIMEOUT_S", 0.2)
    holder, waiter = build_database(sqlite_url), build_database(sqlite_url)
    with (
        holder.write(),
        pytest.raises(StoreUnavailableError, match=r"was locked for over 0\.2 s by another process"),
        waiter.write(),
    ):
        pytest.fail("two writers at once")
    with waiter.write():
        pass
    holder.close()
    waiter.close()


def test_connections_all_busy_for_too_long_says_so(database_url, monkeypatch):
    monkeypatch.setattr(database_module, "_POOL_TIMEOUT_S", 0.2)
    database = build_database(database_url, pool_size=1)
    with (
        database.read(),
        database.read(),
        pytest.raises(StoreUnavailableError, match=r"all connections to the store .* were busy"),
        database.read(),
    ):
        pytest.fail("more connections than allowed")
    database.close()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("foreign_keys", 1), ("synchronous", 2), ("busy_timeout", 15_000)],
)
def test_pragma_of_every_connection_is_set(sqlite_database, pragma, value):
    with sqlite_database.read() as first, sqlite_database.read() as second:
        assert first.execute(text(f"PRAGMA {pragma}")).scalar_one() == value
        assert second.execute(text(f"PRAGMA {pragma}")).scalar_one() == value


def test_fresh_file_opened_by_many_at_once_is_set_up_by_all(sqlite_url):
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def open_it() -> None:
        database = build_database(sqlite_url)
        try:
            start.wait(10)
            with database.write() as session:
                session.execute(text("CREATE TABLE IF NOT EXISTS parent (id int)"))
        except BaseException as error:  # noqa: BLE001 - shown by the test
            errors.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_switch_to_wal_is_repeated_while_another_connection_does_the_same():
    class Cursor:
        n_calls = 0

        def execute(self, _statement: str) -> None:
            self.n_calls += 1
            if self.n_calls < 3:
                raise sqlite3.OperationalError("database is locked")

    cursor = Cursor()
    database_module._switch_to_wal(cursor)
    assert cursor.n_calls == 3


def test_postgres_compiles_no_statements(postgres_url):
    built = build_database(postgres_url)
    with built.read() as session:
        assert session.execute(text("SHOW jit")).scalar_one() == "off"
    built.close()
