"""What a Postgres server must grant before a long-lived process relies on it; each lack is named with its way out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from watcher.database.engine import Database, translated_errors
from watcher.domain.errors import ConfigError, StoreUnavailableError

# What other roles do is hidden from an ordinary one, but not that they are there.
_FACTS = """
SELECT pg_backend_pid() AS pid,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true)::int, 0) AS n_allowed,
    role.rolconnlimit AS n_allowed_role,
    base.datconnlimit AS n_allowed_database,
    role.rolsuper AS is_superuser,
    seen.n_used, seen.n_used_role, seen.n_used_database
FROM pg_roles AS role, pg_database AS base, (
    SELECT count(*) AS n_used,
        count(*) FILTER (WHERE usename = current_user) AS n_used_role,
        count(*) FILTER (WHERE datname = current_database()) AS n_used_database
    FROM pg_stat_activity WHERE usesysid IS NOT NULL
) AS seen
WHERE role.rolname = current_user AND base.datname = current_database()
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
    for limit, n_allowed, n_used in _list_limits(facts):
        if n_allowed - n_used + 1 < n_connections:  # this one counts already
            raise ConfigError(
                f"the Postgres at {where} has too few connections: it allows {n_allowed}, {n_used} are in use, "
                f"and this process needs up to {n_connections}. Raise {limit}, or lower WATCHER_STORE__POOL_SIZE "
                "or the concurrency of the workers"
            )


def _list_limits(facts: Any) -> list[tuple[str, int, int]]:
    """What bounds the connections, as (what to raise, how many it allows, how many are in use)."""
    limits = [("max_connections", facts.n_allowed, facts.n_used)]
    if not facts.is_superuser:  # they are held for ordinary roles alone, and -1 means none
        limits += [
            ("the CONNECTION LIMIT of the role", facts.n_allowed_role, facts.n_used_role),
            ("the CONNECTION LIMIT of the database", facts.n_allowed_database, facts.n_used_database),
        ]
    return [limit for limit in limits if limit[1] >= 0]
