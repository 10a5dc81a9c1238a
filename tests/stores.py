"""Fixtures: stores with their tables, made once for a run and copied or emptied for each test.

A folder of tests takes them by importing their names into its `conftest.py`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests import postgres
from tests.builders import open_store
from watcher.store.tables import metadata

__all__ = ["migrated_file", "migrated_url", "store_url"]


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "store.sqlite"
    with open_store(f"sqlite:///{path}"):
        pass
    return path


@pytest.fixture(scope="session")
def migrated_url(postgres_server: postgres.Server) -> Iterator[str]:
    name = postgres.new_database_name()
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        with open_store(postgres_server.url(name)):
            pass
        yield postgres_server.url(name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty store with its tables, once on SQLite and once on Postgres.

    Copied and emptied instead of made anew, which is what the tests of the migrations do.
    """
    if request.param == "sqlite":
        path = request.getfixturevalue("tmp_path") / "store.sqlite"
        shutil.copyfile(request.getfixturevalue("migrated_file"), path)
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_url")
    empty_store(url)
    return url


def empty_store(url: str) -> None:
    """Empties the tables of a store on Postgres; ids begin at one again."""
    tables = sql.SQL(", ").join(sql.Identifier(table.name) for table in metadata.sorted_tables)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))
