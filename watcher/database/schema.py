"""Schema versions: what a program needs, what a database has, and the way from one to the other.

Alembic makes the changes. It is loaded only for them: what version a program needs stands in the names of its
migrations, and what version a database has is one row, so that a start without changes goes without it.

Beside the version of a database stands its floor: the oldest version whose programs still work on it. A migration that
only adds leaves the floor alone, so a program of before goes on, and starts again, beside the new one. A migration that
takes away what older programs need says from which version on programs do without: `oldest_compatible = "0012"`.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from watcher.database.engine import Database, translated_errors
from watcher.domain.errors import SchemaMismatchError, StoreError

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic keeps its environment in module globals, so one upgrade at a time in a process.
_upgrading = threading.Lock()
_VERSION = re.compile(r"(?P<version>\d{4})_\w+\.py")
_OLDEST_COMPATIBLE = re.compile(r'^oldest_compatible = "(?P<version>\d{4})"$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Schema:
    """A set of tables with its own line of migrations.

    Attributes:
        name: folder below `migrations/`.
        version_table: where Alembic keeps the version, so that several schemas can share one database.
        upgrade_command: what a person runs to bring the schema up.
    """

    name: str
    version_table: str
    upgrade_command: str

    @property
    def migrations_dir(self) -> Path:
        """Where the migrations lie: inside an installed package, or beside it in a checkout."""
        package = Path(__file__).resolve().parents[1]
        installed = package / "_migrations" / self.name
        return installed if installed.is_dir() else package.parent / "migrations" / self.name

    def list_versions(self) -> list[str]:
        """The versions this program knows, oldest first: what the names of the migrations begin with.

        Raises:
            StoreError: the migrations are not installed.
        """
        return list(self._find_migrations())

    def find_floor(self) -> str:
        """The oldest version whose programs work on the newest one: by the newest migration that tells, or the first.

        Raises:
            StoreError: the migrations are not installed.
        """
        migrations = self._find_migrations()
        for path in reversed(migrations.values()):
            if found := _OLDEST_COMPATIBLE.search(path.read_text(encoding="utf-8")):
                return found["version"]
        return next(iter(migrations))

    def _find_migrations(self) -> dict[str, Path]:
        folder = self.migrations_dir / "versions"
        if not folder.is_dir():
            raise StoreError(
                f"the migrations are missing: {self.migrations_dir} does not exist; install the package anew"
            )
        return {
            found["version"]: path
            for path in sorted(folder.iterdir())
            if (found := _VERSION.fullmatch(path.name))
        }


@dataclass(frozen=True, slots=True)
class _Present:
    """What a database says of itself; no floor in one of a release that had none."""

    version: str | None
    floor: str | None


def upgrade_schema(database: Database, schema: Schema) -> str:
    """Brings the schema to the newest version in one transaction; harmless, and cheap, if it is there already.

    Returns:
        The version after the upgrade: a newer one than this program's, if it only adds to it.

    Raises:
        SchemaMismatchError: the database is newer than this program, and no longer fit for it.
    """
    versions = schema.list_versions()
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        present = _load_present(connection, schema)
    if present.version != versions[-1] or present.floor is None:
        with _upgrading, translated_errors(database.engine.url), database.engine.connect() as connection:
            locked = connection.execution_options(sqlite_begin="IMMEDIATE")
            with locked.begin():
                _upgrade_locked(locked, schema)
    return check_schema(database, schema)


def _upgrade_locked(connection: Connection, schema: Schema) -> None:
    import alembic.command  # noqa: PLC0415 - ten megabytes, wanted once in the life of a version

    if connection.dialect.name != "sqlite":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": schema.version_table}
        )
    if _is_beyond(_load_present(connection, schema), schema):
        return
    alembic.command.upgrade(build_alembic_config(connection, schema), "head")
    if not _has_floor(connection, schema):
        connection.execute(text(f"ALTER TABLE {schema.version_table} ADD COLUMN floor VARCHAR(32)"))
    connection.execute(
        text(f"UPDATE {schema.version_table} SET floor = :floor"),  # noqa: S608 - a name of the program
        {"floor": schema.find_floor()},
    )


def build_alembic_config(connection: Connection, schema: Schema) -> Config:
    """What Alembic's commands want in order to work on the connection's transaction."""
    from alembic.config import Config  # noqa: PLC0415 - see `_upgrade_locked`

    config = Config()
    config.set_main_option("script_location", str(schema.migrations_dir).replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = schema.version_table
    return config


def has_schema(database: Database, schema: Schema) -> bool:
    """Whether any version of the schema is there; False for a database in which it was never set up."""
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        return _load_present(connection, schema).version is not None


def check_schema(database: Database, schema: Schema) -> str:
    """Refuses a database whose schema this program cannot work on.

    Returns:
        The version: the one this program was written for, or a newer one that only added to it.

    Raises:
        SchemaMismatchError: older, too new or absent; the text names the command to run.
    """
    newest = schema.list_versions()[-1]
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        present = _load_present(connection, schema)
    if present.version is not None and _is_beyond(present, schema):
        return present.version
    if present.version != newest:
        state = "has no tables yet" if present.version is None else f"is at version {present.version}"
        raise SchemaMismatchError(
            f"the {schema.name} schema {state}, this program needs {newest}: run `{schema.upgrade_command}`"
        )
    return newest


def _is_beyond(present: _Present, schema: Schema) -> bool:
    """Whether the database is newer than this program, which works on it nevertheless.

    Raises:
        SchemaMismatchError: it does not.
    """
    known = schema.list_versions()
    if present.version is None or present.version in known:
        return False
    if present.floor in known:
        return True
    wants = "" if present.floor is None else f" and wants programs from version {present.floor} on"
    raise SchemaMismatchError(
        f"the {schema.name} schema is at version {present.version}, which this program does not know: it was made by "
        f"a newer release{wants}; run that release, or restore a backup from before the upgrade"
    )


def _load_present(connection: Connection, schema: Schema) -> _Present:
    if not inspect(connection).has_table(schema.version_table):
        return _Present(None, None)
    floor = "floor" if _has_floor(connection, schema) else "NULL"
    statement = text(
        f"SELECT version_num, {floor} AS floor FROM {schema.version_table}"  # noqa: S608 - names of the program
    )
    row = connection.execute(statement).one_or_none()
    return _Present(None, None) if row is None else _Present(row.version_num, row.floor)


def _has_floor(connection: Connection, schema: Schema) -> bool:
    return any(column["name"] == "floor" for column in inspect(connection).get_columns(schema.version_table))
