"""Schemas: brought up in one transaction, and refused when they are not this program's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from watcher.database.engine import build_database
from watcher.database.schema import Schema, check_schema, upgrade_schema
from watcher.domain.errors import SchemaMismatchError, StoreError

ROOT = Path(__file__).parents[3]
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {before!r}

def upgrade():
    {body}
"""


@dataclass(frozen=True, slots=True)
class FolderSchema(Schema):
    """A schema whose migrations lie in a folder of the test."""

    folder: Path = Path()

    @property
    def migrations_dir(self) -> Path:
        return self.folder


def add_migration(
    folder: Path, revision: str, before: str | None, body: str, *, oldest: str | None = None
) -> None:
    text_of_it = MIGRATION.format(revision=revision, before=before, body=body)
    if oldest is not None:
        text_of_it += f'\noldest_compatible = "{oldest}"\n'
    (folder / "versions" / f"{revision}_test.py").write_text(text_of_it)


def create_table(name: str) -> str:
    return f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'


def build_schema(folder: Path, table: str = "first", *, name: str = "test") -> FolderSchema:
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text((ROOT / "migrations" / "watcher" / "env.py").read_text())
    add_migration(folder, "0001", None, create_table(table))
    return FolderSchema(name, f"{name}_version", f"{name} migrate", folder)


@pytest.fixture
def schema(tmp_path):
    return build_schema(tmp_path / "migrations")


@pytest.fixture
def database(database_url):
    built = build_database(database_url)
    yield built
    built.close()


def tables_of(database) -> set[str]:
    with database.engine.connect() as connection:
        return set(inspect(connection).get_table_names())


def test_schema_that_is_absent_is_refused_with_the_command(database, schema):
    with pytest.raises(
        SchemaMismatchError, match=r"the test schema has no tables yet.*needs 0001: run `test migrate`"
    ):
        check_schema(database, schema)


def test_schema_upgraded_is_accepted(database, schema):
    assert upgrade_schema(database, schema) == "0001"
    assert check_schema(database, schema) == "0001"
    assert tables_of(database) == {"first", "test_version"}


def test_schema_upgraded_twice_stays_as_it_is(database, schema):
    upgrade_schema(database, schema)
    with database.write() as session:
        session.execute(text("INSERT INTO first VALUES (1)"))
    assert upgrade_schema(database, schema) == "0001"
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM first")).scalar_one() == 1


def test_schema_that_is_older_is_refused_with_the_command_and_then_brought_up(database, schema):
    upgrade_schema(database, schema)
    add_migration(schema.folder, "0002", "0001", create_table("second"))
    with pytest.raises(
        SchemaMismatchError, match="is at version 0001, this program needs 0002: run `test migrate`"
    ):
        check_schema(database, schema)
    assert upgrade_schema(database, schema) == "0002"
    assert "second" in tables_of(database)


@pytest.mark.parametrize("act", [check_schema, upgrade_schema])
def test_schema_that_is_newer_and_only_adds_is_fit_for_a_program_of_before(database, schema, act):
    add_migration(schema.folder, "0002", "0001", create_table("second"))
    upgrade_schema(database, schema)
    (schema.folder / "versions" / "0002_test.py").unlink()
    assert act(database, schema) == "0002"
    assert "second" in tables_of(database)
    with database.read() as session:
        assert session.execute(text("SELECT version_num FROM test_version")).scalar_one() == "0002"


@pytest.mark.parametrize("act", [check_schema, upgrade_schema])
def test_schema_that_took_something_away_is_refused_by_programs_that_need_it(database, schema, act):
    upgrade_schema(database, schema)
    add_migration(schema.folder, "0002", "0001", create_table("second"))
    add_migration(schema.folder, "0003", "0002", 'op.drop_table("first")', oldest="0002")
    add_migration(schema.folder, "0004", "0003", create_table("fourth"))
    upgrade_schema(database, schema)
    versions = schema.folder / "versions"
    for revision in ("0004", "0003"):  # a program of 0003, then one of 0002
        (versions / f"{revision}_test.py").unlink()
        assert act(database, schema) == "0004"
    (versions / "0002_test.py").unlink()
    with pytest.raises(
        SchemaMismatchError,
        match=r"is at version 0004, which this program does not know.*newer release and wants programs from version 0002",
    ):
        act(database, schema)


@pytest.mark.parametrize("act", [check_schema, upgrade_schema])
def test_schema_that_is_newer_and_tells_no_floor_is_refused_and_left_alone(database, schema, act):
    upgrade_schema(database, schema)
    with database.write() as session:
        session.execute(text("UPDATE test_version SET version_num = '0002', floor = NULL"))
    with pytest.raises(
        SchemaMismatchError, match=r"is at version 0002, which this program does not know.*newer release"
    ):
        act(database, schema)
    with database.read() as session:
        assert session.execute(text("SELECT version_num FROM test_version")).scalar_one() == "0002"


def test_upgrade_that_fails_half_way_leaves_the_schema_as_it_was(database, schema):
    upgrade_schema(database, schema)
    add_migration(schema.folder, "0002", "0001", create_table("second"))
    add_migration(
        schema.folder,
        "0003",
        "0002",
        f'{create_table("third")}; op.execute("INSERT INTO nowhere VALUES (1)")',
    )
    with pytest.raises((DBAPIError, StoreError)):
        upgrade_schema(database, schema)
    assert tables_of(database) == {"first", "test_version"}
    with database.read() as session:
        assert session.execute(text("SELECT version_num FROM test_version")).scalar_one() == "0001"


def test_two_schemas_in_one_database_do_not_see_each_other(database, schema, tmp_path):
    other = build_schema(tmp_path / "other", "other", name="other")
    upgrade_schema(database, schema)
    with pytest.raises(SchemaMismatchError, match="the other schema has no tables yet"):
        check_schema(database, other)
    upgrade_schema(database, other)
    assert tables_of(database) == {"first", "test_version", "other", "other_version"}


UPGRADE_AT_ONCE = """
import sys, threading, time
from pathlib import Path
from tests.unit.database.test_schema import FolderSchema
from watcher.database.engine import build_database
from watcher.database.schema import upgrade_schema

url, go, *folders = sys.argv[1:]
outcomes = []
def upgrade(folder):
    while not Path(go).exists():
        time.sleep(0.001)
    name = Path(folder).name
    database = build_database(url)
    outcomes.append(upgrade_schema(database, FolderSchema(name, name + "_version", "migrate", Path(folder))))
    database.close()

threads = [threading.Thread(target=upgrade, args=(folder,)) for folder in folders * 2]
for thread in threads:
    thread.start()
print("waiting", flush=True)
for thread in threads:
    thread.join()
print(*outcomes)
"""


def test_upgrades_by_several_processes_at_once_all_end_at_the_newest_version(database_url, tmp_path):
    folders = []
    for name in ("one", "other"):
        folder = build_schema(tmp_path / name, name, name=name).folder
        body = f"import time; time.sleep(0.2); {create_table(name + '_late')}"
        add_migration(folder, "0002", "0001", body)
        folders.append(str(folder))
    go = tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE_AT_ONCE, database_url, go, *folders],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout.readline() == "waiting\n"
    go.touch()
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert output == "0002 0002 0002 0002\n", errors


def test_migrations_below_a_folder_with_a_percent_sign_are_found(database, tmp_path):
    schema = build_schema(tmp_path / "100%s of them")
    assert upgrade_schema(database, schema) == "0001"


def test_migrations_that_were_not_installed_are_named(database, tmp_path):
    schema = FolderSchema("test", "test_version", "test migrate", tmp_path / "nowhere")
    with pytest.raises(StoreError, match="nowhere does not exist; install the package anew"):
        check_schema(database, schema)


@pytest.mark.parametrize("name", ["watcher", "platform"])
def test_migrations_of_a_checkout_lie_beside_the_package(name):
    assert Schema(name, "version", "migrate").migrations_dir == ROOT / "migrations" / name
