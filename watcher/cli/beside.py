"""What the commands beside a running daemon need: where it is, and what it says that it cannot do."""

from __future__ import annotations

from collections.abc import Callable

from watcher import bootstrap
from watcher.database.engine import Database, build_process_name
from watcher.domain.errors import ConfigError, WatcherError
from watcher.ops.control import Control
from watcher.settings.root import Settings
from watcher.store import duty_problems
from watcher.store.duty_problems import Duty, DutyProblem
from watcher.store.leadership import load_leader, tell_where_to_ask


def find_daemon(settings: Settings) -> Control:
    """How to reach the daemon that leads; only the one of this machine tells its token.

    Raises:
        ConfigError: it is on another machine, and named; or its file cannot be read here.
    """
    try:
        return Control.read(settings.data_dir)
    except ConfigError:
        database = bootstrap.open_existing_store(settings)
        try:
            with database.read() as session:
                leader = load_leader(session)
        finally:
            database.close()
        here = build_process_name().partition(":")[0]
        if leader.holder is None or leader.holder.partition(":")[0] == here:
            raise
        raise ConfigError(
            f"no daemon leads on this machine; {tell_where_to_ask(leader)}, or ask its control API over HTTP"
        ) from None


def watch_problems(database: Database, name: str, duty: Duty) -> Callable[[], None]:
    """A function that raises what the daemon notes from now on as the reason why it could not do its duty."""

    def load_last() -> DutyProblem | None:
        with database.read() as session:
            return duty_problems.load_problem(session, watch=name, duty=duty)

    before = load_last()

    def refuse() -> None:
        last = load_last()
        if last is not None and last.problem is not None and last.number > (before.number if before else 0):
            raise (ConfigError if last.is_config else WatcherError)(last.problem)

    return refuse
