"""Beside a running daemon: asking for what only the leader does, and waiting until it did."""

from __future__ import annotations

import getpass
import os
import time

from watcher.database.engine import Database
from watcher.domain.errors import ConfigError, DeadlineExceededError, WatcherError
from watcher.ops.changes import name_actor, request_duty
from watcher.ops.control import Control
from watcher.ops.tokens import LOCAL
from watcher.settings.root import Settings
from watcher.store import duty_problems, duty_requests
from watcher.store.duty_problems import Duty
from watcher.store.leadership import load_leader

_LOOK_AGAIN_S = 0.1
# Longer than a replica that stands by takes to follow a leader whose lease ran out.
_LEADERLESS_S = 10.0


def have_done(settings: Settings, database: Database, *, watch: str, duty: Duty, limit_s: float) -> None:
    """Asks the leader, wherever it runs, for a poll or a full comparison, and returns when it did.

    Args:
        settings: where the daemon of this machine tells how to reach it.
        database: the store.
        watch: name of a configured watch.
        duty: what is wanted.
        limit_s: the longest wait.

    Raises:
        ConfigError: it is not allowed, or what kept the leader from it is for a person to change.
        WatcherError: what else kept the leader from it.
        DeadlineExceededError: it was not done in time, or nobody follows the leader; it stays asked for.
    """
    with database.read() as session:
        before = duty_problems.load_problem(session, watch=watch, duty=duty)
    number = _ask(settings, database, watch, duty)
    led_s = time.monotonic()
    ends_s = led_s + limit_s
    while True:
        with database.read() as session:
            request = duty_requests.load_request(session, watch=watch, duty=duty)
            last = duty_problems.load_problem(session, watch=watch, duty=duty)
            leader = load_leader(session)
        if request is None or request.answered >= number:
            break
        now_s = time.monotonic()
        # The daemon of an SQLite file leads by its lock, whatever stands there.
        led_s = now_s if leader.is_in_office or database.is_sqlite else led_s
        if now_s - led_s > _LEADERLESS_S:
            raise DeadlineExceededError(
                f"nobody leads any more, so the {duty} of {watch} waits for the next leader: start a daemon, or run "
                "the command again, which then does it itself"
            )
        if now_s > ends_s:
            led = f"{leader.holder} leads" if leader.is_in_office else "nobody leads at present"
            raise DeadlineExceededError(
                f"no {duty} of {watch} ended within {limit_s:.0f} s; it stays asked for ({led}; the leader's log tells "
                "more)"
            )
        time.sleep(_LOOK_AGAIN_S)
    if last is not None and last.problem is not None and last.number > (before.number if before else 0):
        raise (ConfigError if last.is_config else WatcherError)(last.problem)


def _ask(settings: Settings, database: Database, watch: str, duty: Duty) -> int:
    """The number of the request; on Postgres anyone may write it, an SQLite file belongs to its daemon."""
    if not database.is_sqlite:
        actor = name_actor(LOCAL, tell_actor())
        now_ms = int(time.time() * 1000)
        asked, _ = request_duty(database, watch=watch, duty=duty, actor=actor, now_ms=now_ms)
        return asked.number
    Control.read(settings.data_dir).request(watch, duty.value, actor=tell_actor())
    with database.read() as session:
        request = duty_requests.load_request(session, watch=watch, duty=duty)
    return 0 if request is None else request.number


def tell_actor() -> str:
    """Who gives the command, for the audit log."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"uid {os.getuid()}"
