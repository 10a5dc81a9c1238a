"""Schema versions: what a program needs, what a database has, and the way from one to the other.

Alembic makes the changes. It is loaded only for them: what version a program needs stands in the names of its
migrations, and what version a database has is one row, so that a start without changes goes without it.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from watcher.database import Database, translated_errors
from watcher.domain.errors import SchemaMismatchError, StoreError

if TYPE_CHECKING:
    from alembic.config import Config

# Alembic keeps its environment in module globals, so one upgrade at a time in a process.
_upgrading = threading.Lock()
_VERSION = re.compile(r"(?P<version>\d{4})_\w+\.py")


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
        package = Path(__file__).resolve().parent
        installed = package / "_migrations" / self.name
        return installed if installed.is_dir() else package.parent / "migrations" / self.name

    def list_versions(self) -> list[str]:
        """The versions this program knows, oldest first: what the names of the migrations begin with.

        Raises:
            StoreError: the migrations are not installed.
        """
        folder = self.migrations_dir / "versions"
        if not folder.is_dir():
            raise StoreError(
                f"the migrations are missing: {self.migrations_dir} does not exist; install the package anew"
            )
        return sorted(
            found["version"] for path in folder.iterdir() if (found := _VERSION.fullmatch(path.name))
        )


def upgrade_schema(database: Database, schema: Schema) -> str:
    """Brings the schema to the newest version in one transaction; harmless, and cheap, if it is there already.

    Returns:
        The version after the upgrade.

    Raises:
        SchemaMismatchError: the database is newer than this program.
    """
    versions = schema.list_versions()
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        current = _current_version(connection, schema)
    if current is None or current != versions[-1]:
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
    _refuse_newer(_current_version(connection, schema), schema)
    alembic.command.upgrade(build_alembic_config(connection, schema), "head")


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
        return _current_version(connection, schema) is not None


def check_schema(database: Database, schema: Schema) -> str:
    """Refuses a database whose schema is not the one this program was written for.

    Returns:
        The version.

    Raises:
        SchemaMismatchError: older, newer or absent; the text names the command to run.
    """
    newest = schema.list_versions()[-1]
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        current = _current_version(connection, schema)
    _refuse_newer(current, schema)
    if current != newest:
        state = "has no tables yet" if current is None else f"is at version {current}"
        raise SchemaMismatchError(
            f"the {schema.name} schema {state}, this program needs {newest}: run `{schema.upgrade_command}`"
        )
    return newest


def _refuse_newer(current: str | None, schema: Schema) -> None:
    if current is not None and current not in schema.list_versions():
        raise SchemaMismatchError(
            f"the {schema.name} schema is at version {current}, which this program does not know: it was made by a "
            "newer release; run that release, or restore a backup from before the upgrade"
        )


def _current_version(connection: Connection, schema: Schema) -> str | None:
    if not inspect(connection).has_table(schema.version_table):
        return None
    statement = text(f"SELECT version_num FROM {schema.version_table}")  # noqa: S608 - a name of the program
    return connection.execute(statement).scalar_one_or_none()
