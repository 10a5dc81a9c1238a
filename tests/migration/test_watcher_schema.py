"""The daemon's migrations: they make exactly the tables the code knows, and refuse every other version by name."""

from __future__ import annotations

import re

import alembic.autogenerate
import alembic.command
import alembic.config
import alembic.migration
import pytest
from sqlalchemy import inspect, text

from tests.builders import add_batch, add_watch, list_names, load, run_command
from watcher.database.engine import build_database
from watcher.database.schema import check_schema, upgrade_schema
from watcher.domain.errors import SchemaMismatchError
from watcher.domain.models import SampleState
from watcher.store import SCHEMA
from watcher.store.counts import correct_counts, load_counts
from watcher.store.tables import metadata

HEAD = "0016"


@pytest.fixture
def database(database_url):
    opened = build_database(database_url)
    yield opened
    opened.close()


def set_version(database, version: str, *, floor: str = "0001") -> None:
    with database.write() as session:
        session.execute(
            text(f"UPDATE {SCHEMA.version_table} SET version_num = :v, floor = :f"),
            {"v": version, "f": floor},
        )


def describe(database) -> dict[str, object]:
    """What the database itself says of its tables, by the names a migration must keep."""
    with database.engine.connect() as connection:
        seen = inspect(connection)
        return {
            name: {
                "columns": {c["name"]: (str(c["type"]), c["nullable"]) for c in seen.get_columns(name)},
                "primary key": seen.get_pk_constraint(name)["constrained_columns"],
                "unique": sorted(sorted(u["column_names"]) for u in seen.get_unique_constraints(name)),
                "foreign keys": sorted(
                    (*f["constrained_columns"], f["referred_table"]) for f in seen.get_foreign_keys(name)
                ),
                "indexes": sorted(
                    (
                        str(i["name"]),
                        tuple(i["column_names"]),
                        str(i.get("dialect_options", {}).get(f"{database.engine.dialect.name}_where")),
                    )
                    for i in seen.get_indexes(name)
                    if not i.get("duplicates_constraint")
                ),
            }
            for name in seen.get_table_names()
            if name != SCHEMA.version_table
        }


def test_migrations_of_a_fresh_database_leave_nothing_for_alembic_to_change(database):
    upgrade_schema(database, SCHEMA)
    with database.engine.connect() as connection:
        context = alembic.migration.MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _parents: kind != "table" or name != SCHEMA.version_table,
            },
        )
        assert alembic.autogenerate.compare_metadata(context, metadata) == []


def test_migrations_make_the_same_database_as_the_tables_of_the_code(
    database_url, database, request, tmp_path
):
    upgrade_schema(database, SCHEMA)
    migrated = describe(database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {SCHEMA.version_table}")
        metadata.drop_all(connection)
        metadata.create_all(connection)
    assert describe(database) == migrated


def test_schema_that_is_absent_is_refused_with_the_command(database):
    with pytest.raises(SchemaMismatchError, match=r"has no tables yet.*run `watcher migrate`"):
        check_schema(database, SCHEMA)


def test_schema_that_is_older_is_refused_with_the_command(database):
    upgrade_schema(database, SCHEMA)
    with database.write() as session:
        session.execute(text(f"DELETE FROM {SCHEMA.version_table}"))
    with pytest.raises(SchemaMismatchError, match=rf"needs {HEAD}: run `watcher migrate`"):
        check_schema(database, SCHEMA)


@pytest.mark.parametrize("act", [check_schema, upgrade_schema])
def test_schema_that_is_newer_is_accepted_from_its_floor_on_and_else_refused_with_the_ways_out(database, act):
    upgrade_schema(database, SCHEMA)
    set_version(database, "9999")
    assert act(database, SCHEMA) == "9999"
    set_version(database, "9999", floor="9998")
    with pytest.raises(
        SchemaMismatchError, match=r"at version 9999, which this program does not know.*newer release"
    ):
        act(database, SCHEMA)
    set_version(database, HEAD)
    assert check_schema(database, SCHEMA) == HEAD


def test_migration_that_takes_something_away_says_which_programs_do_without():
    files = sorted(SCHEMA.migrations_dir.parent.glob("*/versions/*.py"))
    assert len(files) > 8
    takes_away = re.compile(
        r"op\.(drop_(table|column|constraint)|alter_column|rename_table)|\bDROP (TABLE|COLUMN)"
    )
    for path in files:
        code = path.read_text(encoding="utf-8").partition("def downgrade")[0]
        assert not takes_away.search(code) or "\noldest_compatible = " in code, path.name


@pytest.mark.scenario(number=38)
def test_upgrade_repeated_keeps_every_row(database):
    upgrade_schema(database, SCHEMA)
    watch = add_watch(database)
    add_batch(database, watch, ["a"])
    before = load(database, watch, "a")
    assert upgrade_schema(database, SCHEMA) == HEAD
    assert load(database, watch, "a") == before


def upgrade_to(database, version: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(SCHEMA.migrations_dir))
    config.attributes["version_table"] = SCHEMA.version_table
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, version)


def test_upgrade_of_a_ledger_without_counts_counts_what_is_there_and_goes_on_counting(database):
    upgrade_to(database, "0001")
    with database.write() as session:  # as the first release wrote them: the code of today knows more columns
        session.execute(
            text(
                "INSERT INTO watches (id, name, server, dataset_id, created_ms) "
                f"VALUES (1, 'gate', 'https://api.example.com', '{b'gate'.hex():0<24}', 1)"
            )
        )
        for name in ("a", "b"):
            session.execute(
                text(
                    "INSERT INTO samples (watch_id, file_name, read_url, state, via, poll_id, available_ms, "
                    "discovered_ms, changed_ms) VALUES (1, :name, 'u', 'waiting', 'window', 1, 1, 1, 1)"
                ),
                {"name": name},
            )
        if not database.is_sqlite:
            session.execute(text("SELECT setval(pg_get_serial_sequence('watches', 'id'), 1)"))
    upgrade_schema(database, SCHEMA)
    watch = add_watch(database)
    list_names(database, watch, ["b", "c"])
    with database.write() as session:
        assert load_counts(session)["gate", SampleState.WAITING] == 3
        assert correct_counts(session, watch_id=watch.id) == {}


def test_command_migrate_makes_the_schema_and_the_others_refuse_one_that_is_not_theirs(
    database, database_url, tmp_path
):
    environ = {"WATCHER_STORE__URL": database_url, "WATCHER_DATA_DIR": str(tmp_path / "data")}
    absent = run_command("status", **environ)
    assert absent.exit_code != 0
    if not database.is_sqlite:
        assert "run `watcher migrate`" in absent.stderr
    done = run_command("migrate", **environ)
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"store: version {HEAD}" in done.stdout
    assert run_command("status", **environ).exit_code == 0
    set_version(database, "9999", floor="9998")
    for command in ("status", "migrate", "poll"):
        refused = run_command(command, **environ)
        assert refused.exit_code == 1
        assert "at version 9999, which this program does not know" in refused.stderr
