"""What a Postgres server must grant before a long-lived process relies on it; each lack is named with its way out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from watcher.database import Database, translated_errors
from watcher.domain.errors import ConfigError, StoreUnavailableError

_FACTS = """
SELECT pg_backend_pid() AS pid,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int AS n_allowed,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS n_used
"""


def check_server(database: Database, *, n_connections: int) -> None:
    """Refuses what would fail only later, under load; SQLite has none of these troubles.

    Args:
        database: where to look.
        n_connections: how many this process keeps open at the most.

    Raises:
        ConfigError: a pooler stands between, or too few connections are left.
        StoreUnavailableError: the server cannot be reached, or is read-only.
    """
    if database.is_sqlite:
        return
    with translated_errors(database.engine.url), database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        told_pid = driver.info.backend_pid
        facts = connection.execute(text(_FACTS)).one()
    where = f"{database.engine.url.host}:{database.engine.url.port or 5432}"
    if told_pid != facts.pid:
        raise ConfigError(
            f"a connection pooler stands before the Postgres at {where} (it greets as process {told_pid}, the server "
            f"is {facts.pid}). In transaction mode it would break the queue's notifications and prepared statements: "
            "let WATCHER_STORE__URL name the server itself"
        )
    if facts.is_read_only:
        raise StoreUnavailableError(
            f"the Postgres at {where} is read-only: it is a standby, or it was switched to read-only. Name the primary "
            "in WATCHER_STORE__URL, or switch it back"
        )
    n_free = facts.n_allowed - facts.n_used + 1  # this one counts already
    if n_free < n_connections:
        raise ConfigError(
            f"the Postgres at {where} has too few connections: it allows {facts.n_allowed}, {facts.n_used} are in use, "
            f"and this process needs up to {n_connections}. Raise max_connections, or lower WATCHER_STORE__POOL_SIZE "
            "or the concurrency of the workers"
        )
