"""Runs on many machines: Procrastinate carries hints, the rows of `runs` carry the truth.

A hint is a task with the id of a run that is ready, deferred in the transaction that made it so. Whoever takes a hint
claims a run of that step by the rules of `store.claims`, so hints need no order of their own: there is one for each
ready run, and it does not matter which of them leads to which. Hints that were lost - the whole queue may be deleted -
are made again by `sweep`, which every leader and every worker calls now and then. A hint too many finds nothing.

The queue lies in a schema of its own in the store's database. It holds nothing that cannot be made again, so another
version of Procrastinate simply gets a new one.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from watcher.database.engine import Database, translated_errors
from watcher.domain.clock import Clock
from watcher.domain.errors import ConfigError, SchemaMismatchError
from watcher.domain.models import Step
from watcher.logs import get_logger
from watcher.store import claims, runs

_log = get_logger("queue")

SCHEMA_NAME = "watcher_queue"
TASK = "watcher.run"
_MOST_HINTS = 2000
_LOCK_KEY = 0x717565756500


def procrastinate_version() -> str:
    """The installed version.

    Raises:
        ConfigError: it is not installed; the text names the extra.
    """
    try:
        return version("procrastinate")
    except PackageNotFoundError:
        raise ConfigError(
            "WATCHER_DISPATCH=procrastinate needs the extra `workers`: install datasource-watcher[workers]"
        ) from None


def upgrade_queue(database: Database) -> str:
    """Makes the queue's tables, anew if another version of Procrastinate made them; harmless if they are there.

    Returns:
        The version.

    Raises:
        ConfigError: the extra is missing, or the store is no Postgres.
    """
    wanted = procrastinate_version()
    require_postgres(is_sqlite=database.is_sqlite)
    from procrastinate.schema import SchemaManager  # noqa: PLC0415 - only with the extra

    with translated_errors(database.engine.url), database.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        if _load_version(connection) != wanted:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA_NAME} CASCADE"))
            connection.execute(text(f"CREATE SCHEMA {SCHEMA_NAME}"))
            connection.execute(text(f"SET LOCAL search_path TO {SCHEMA_NAME}"))
            driver: Any = connection.connection.driver_connection
            driver.execute(SchemaManager.get_schema())
            # The hints that went with the old tables are made again.
            connection.execute(text("RESET search_path"))
            connection.execute(text("UPDATE runs SET dispatched_ms = NULL WHERE state = 'ready'"))
            driver.execute(f"COMMENT ON SCHEMA {SCHEMA_NAME} IS 'procrastinate {wanted}'")
    return wanted


def check_queue(database: Database) -> None:
    """Refuses a store without the queue of this version.

    Raises:
        ConfigError: the extra is missing, or the store is no Postgres.
        SchemaMismatchError: run the named command.
    """
    wanted = procrastinate_version()
    require_postgres(is_sqlite=database.is_sqlite)
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        present = _load_version(connection)
    if present != wanted:
        state = "is not there yet" if present is None else f"was made by procrastinate {present}"
        raise SchemaMismatchError(
            f"the queue {state}, this program has procrastinate {wanted}: run `watcher migrate`"
        )


def require_postgres(*, is_sqlite: bool) -> None:
    """Refuses a store that the queue cannot be in.

    Raises:
        ConfigError: it is an SQLite file.
    """
    if is_sqlite:
        raise ConfigError(
            "WATCHER_DISPATCH=procrastinate needs Postgres, but the store is an SQLite file: set WATCHER_STORE__URL to "
            "postgresql://..., move the store with `watcher move-store`, or leave WATCHER_DISPATCH at local"
        )


def _load_version(connection: Connection) -> str | None:
    comment = connection.execute(
        text("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :name"),
        {"name": SCHEMA_NAME},
    ).scalar()
    return None if comment is None else str(comment).removeprefix("procrastinate ")


def build_connection_options(database: Database) -> dict[str, Any]:
    """How Procrastinate reaches its tables, as arguments of psycopg."""
    url = database.engine.url
    options: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "dbname": url.database,
        **database.credentials.named,
        **{name: value for name, value in url.query.items() if isinstance(value, str)},
    }
    options["options"] = f"-c search_path={SCHEMA_NAME}"
    options["application_name"] = f"{database.name[:50]} queue"
    options |= {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
    return {name: value for name, value in options.items() if value is not None}


class RunQueue:
    """Defers hints and mends the queue; safe for several threads."""

    def __init__(self, database: Database, *, clock: Clock, most_running: dict[str, int]) -> None:
        """Keeps the store; `most_running` limits the runs of a watch that are in work at once."""
        import procrastinate  # noqa: PLC0415 - only with the extra

        self._database = database
        self._clock = clock
        self._most_running = most_running
        self._app = procrastinate.App(
            connector=procrastinate.SyncPsycopgConnector(kwargs=build_connection_options(database))
        )

    def attach(self, database: Database) -> None:
        """From now on the transactions of `database` that make runs ready defer their hints."""
        database.before_commit.append(self._before_commit)

    def _before_commit(self, session: Session) -> None:
        if session.info.pop(runs.READY, False):
            self.dispatch_ready(session)

    def dispatch_ready(self, session: Session) -> int:
        """Defers a hint for each run that may be claimed now and has none; in the caller's transaction.

        Returns:
            How many.
        """
        now_ms = int(self._clock.now_s() * 1000)
        ready = claims.load_undispatched(
            session, now_ms=now_ms, limit=_MOST_HINTS, most_running=self._most_running
        )
        if not ready:
            return 0
        by_step: dict[Step, list[int]] = defaultdict(list)
        for run_id, step in ready:
            by_step[step].append(run_id)
        with _queue_in_path(session) as driver:
            for step, run_ids in by_step.items():
                self._app.configure_task(TASK, queue=step.value, connection=driver).batch_defer(
                    *(dict[str, Any](run_id=run_id) for run_id in run_ids)
                )
        claims.record_dispatched(session, run_ids=[run_id for run_id, _ in ready], now_ms=now_ms)
        return len(ready)

    def return_hint(self, run_id: int) -> None:
        """A hint led to nothing: its run gets another one when it may be claimed.

        Raises:
            StoreUnavailableError: the store failed; the next sweep finds the run without its hint.
        """
        with self._database.write() as session:
            claims.return_hint(session, run_id=run_id)

    def sweep(self) -> int:
        """Makes up for lost hints: those of runs whose wait ended, of a deleted queue, of dead workers.

        Returns:
            How many hints were deferred.
        """
        with self._database.write() as session:
            claims.release_expired(session, now_ms=int(self._clock.now_s() * 1000))
            n_lost = self._forget_lost(session)
            n_deferred = self.dispatch_ready(session)
        if n_lost:
            _log.warning("hints.lost", n=n_lost)
        return n_deferred

    def _forget_lost(self, session: Session) -> int:
        """Counts hints and runs by step, and lets the runs without a hint have another one."""
        n_jobs = {
            row.queue_name: row.n
            for row in session.execute(
                text(
                    f"SELECT queue_name, count(*) AS n FROM {SCHEMA_NAME}.procrastinate_jobs"  # noqa: S608 - a name of ours
                    " WHERE status IN ('todo', 'doing') GROUP BY queue_name"
                )
            )
        }
        n_lost = 0
        for step, n_open in claims.count_dispatched(session).items():
            missing = n_open - n_jobs.get(step.value, 0)
            if missing > 0:
                n_lost += claims.forget_dispatched(session, step=step, limit=missing)
        return n_lost


@contextlib.contextmanager
def _queue_in_path(session: Session) -> Iterator[Any]:
    """The driver's connection of the transaction, with the queue's tables within reach."""
    before = session.execute(text("SELECT current_setting('search_path')")).scalar_one()
    session.execute(
        text("SELECT set_config('search_path', :path, true)"), {"path": f"{SCHEMA_NAME}, {before}"}
    )
    yield session.connection().connection.driver_connection
    session.execute(text("SELECT set_config('search_path', :path, true)"), {"path": before})
