"""A store of an earlier version keeps every row when it is upgraded, and nothing is ingested again.

`stores/<version>.jsonl` holds the rows of a real store of that schema: the daemon of its time over the demo's frames,
with read URLs and folders made up.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import alembic.command
import pytest
from sqlalchemy import MetaData, func, insert, select, text

from tests.builders import NOW_MS
from watcher.database.engine import build_database
from watcher.database.schema import build_alembic_config, check_schema, upgrade_schema
from watcher.domain.models import BatchState, RunState, SampleState, Via
from watcher.store import SCHEMA, samples
from watcher.store.counts import load_counts
from watcher.store.tables import metadata

STORES = sorted((Path(__file__).parent / "stores").glob("*.jsonl"))

Rows = list[tuple[str, dict[str, Any]]]


@pytest.fixture(params=STORES, ids=lambda path: path.stem)
def rows(request) -> tuple[str, Rows]:
    """The version and its rows, in the order in which they can be inserted."""
    lines = [json.loads(line) for line in request.param.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        for name, value in line["row"].items():
            if isinstance(value, dict):
                line["row"][name] = base64.b64decode(value["base64"])
    return request.param.stem, [(line["table"], line["row"]) for line in lines]


@pytest.fixture
def database(database_url):
    opened = build_database(database_url)
    yield opened
    opened.close()


def make_old_store(database, version: str, rows: Rows) -> None:
    with database.engine.connect() as connection, connection.begin():
        alembic.command.upgrade(build_alembic_config(connection, SCHEMA), version)
    insert_rows(database, rows)


def insert_rows(database, rows: Rows) -> None:
    """As the program of that version would: it names the columns it knows, and no others."""
    found = MetaData()
    found.reflect(database.engine, only=sorted({table for table, _row in rows}))
    with database.write() as session:
        for table, row in rows:
            session.execute(insert(found.tables[table]).values(**row))
        if not database.is_sqlite:
            for table in {table for table, row in rows if "id" in row}:
                session.execute(
                    text(
                        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
                    )
                )


def test_store_of_an_earlier_version_keeps_every_row_and_value(database, rows):
    version, old = rows
    make_old_store(database, version, old)
    upgrade_schema(database, SCHEMA)
    check_schema(database, SCHEMA)
    for table, row in old:
        keys = [column for column in metadata.tables[table].primary_key if column.name in row]
        with database.read() as session:
            (found,) = session.execute(
                select(metadata.tables[table]).where(*(column == row[column.name] for column in keys))
            ).mappings()
        assert {name: found[name] for name in row} == row


def test_store_of_an_earlier_version_ingests_nothing_again(database, rows):
    version, old = rows
    make_old_store(database, version, old)
    upgrade_schema(database, SCHEMA)
    listed = [row for table, row in old if table == "samples"]
    with database.write() as session:
        n_new = samples.record_page(
            session,
            watch_id=listed[0]["watch_id"],
            poll_id=listed[0]["poll_id"],
            via=Via.WINDOW,
            rows=[(row["file_name"], "http://127.0.0.1:1/again", None) for row in listed],
            now_ms=NOW_MS,
        )
        counts = load_counts(session)
    assert n_new == 0
    states = Counter(("incoming", SampleState(row["state"])) for row in listed)
    assert {key: n for key, n in counts.items() if n} == states


def test_program_of_an_earlier_version_goes_on_writing_to_the_upgraded_store(database, rows):
    """Upgrades add and take nothing away, so a daemon that still runs writes its columns and reads them back."""
    _version, old = rows
    upgrade_schema(database, SCHEMA)
    insert_rows(database, old)
    with database.read() as session:
        for table in {table for table, _row in old}:
            n_rows = session.execute(select(func.count()).select_from(metadata.tables[table])).scalar()
            assert n_rows == sum(name == table for name, _row in old)
        assert {
            *session.execute(select(metadata.tables["batches"].c.state)).scalars(),
            *session.execute(select(metadata.tables["runs"].c.state)).scalars(),
        } <= {*BatchState, *RunState}
