"""What people change or ask for, in the store: the same by command and over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from watcher.database.engine import Database
from watcher.domain.crash_points import crash_point
from watcher.domain.errors import ConfigError, RefusedChangeError, UnknownWatchError, WatcherError
from watcher.domain.models import Watch
from watcher.store import control, duty_requests, watches
from watcher.store.duty_problems import Duty
from watcher.store.duty_requests import DutyRequest
from watcher.store.leadership import load_leader, tell_who_does_it

_MOST_NAMED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a change is about, besides its watch.

    Attributes:
        to_s: where `rewind` sets the mark, unix seconds.
        delivery: what alone `replay` makes again or `drop` lets be, `<batch>/<sink>` or `<batch>`.
        sink: `drop`: all dead deliveries to this sink.
        file: what alone `replay` gives another chance: the whole name of a file.
    """

    to_s: int | None = None
    delivery: str | None = None
    sink: str | None = None
    file: str | None = None


def make_change(
    database: Database, *, watch: str, verb: str, wanted: Wanted, actor: str, now_ms: int
) -> tuple[str, bool]:
    """Carries out `pause`, `resume`, `rewind`, `replay` or `drop`, in one transaction with its line in the audit log.

    Args:
        database: the store.
        watch: name of the watch.
        verb: which change.
        wanted: what it is about.
        actor: who wants it, for the audit log.
        now_ms: the present.

    Returns:
        What was done, in words, and whether anything changed.

    Raises:
        ConfigError: there is no such watch or verb.
        RefusedChangeError: it is not allowed as things stand, or there is no such delivery or file.
    """
    with database.write() as session:
        row = find_watch(session, watch)
        done = _apply(session, row, verb, {"actor": actor, "now_ms": now_ms}, wanted)
    crash_point("control.changed")
    return done


def request_duty(
    database: Database, *, watch: str, duty: Duty, actor: str, now_ms: int
) -> tuple[DutyRequest, str]:
    """Asks whoever leads for a poll or a full comparison, in one transaction with its line in the audit log.

    Args:
        database: the store.
        watch: name of a watch that is configured.
        duty: what is wanted.
        actor: who wants it, for the audit log.
        now_ms: the present.

    Returns:
        The request, and who does it, in words.

    Raises:
        RefusedChangeError: a poll of a paused watch.
    """
    with database.write() as session:
        row = watches.load_watch(session, name=watch)
        if row is not None and duty is Duty.POLL:
            control.refuse_paused(row)
        request = duty_requests.record_request(session, watch=watch, duty=duty, now_ms=now_ms)
        if row is not None:  # one that never reached its server has no row, and no log
            control.record_request(session, watch=row, verb=duty.value, actor=actor, now_ms=now_ms)
        leader = load_leader(session)
    crash_point("control.requested")
    return request, f"the {duty} is asked for; {tell_who_does_it(leader)}"


def find_watch(session: Session, name: str) -> Watch:
    """The watch of that name.

    Raises:
        UnknownWatchError: the store has none.
    """
    row = None if "\x00" in name else watches.load_watch(session, name=name)
    if row is None:
        known = [row.name for row in watches.load_watches(session)]
        named = ", ".join(known[:_MOST_NAMED]) + (", ..." if len(known) > _MOST_NAMED else "")
        there = f"known are: {named}" if known else "none has reached its server yet"
        raise UnknownWatchError(f"there is no watch {name[:100]!r}; {there}")
    return row


def name_actor(caller: str, claimed: str = "") -> str:
    """How the audit log names who made a change: whose token it was, and who they say they are."""
    return f"{caller} ({claimed})" if claimed else caller


def _apply(
    session: Session,
    watch: Watch,
    verb: str,
    who_when: dict[str, Any],
    wanted: Wanted,
) -> tuple[str, bool]:
    if verb == "pause":
        changed = control.pause(session, watch=watch, **who_when)
        return "paused" if changed else "it was paused already", changed
    if verb == "resume":
        changed = control.resume(session, watch=watch, **who_when)
        return "resumed" if changed else "it was not paused", changed
    if verb == "rewind":
        if wanted.to_s is None:
            raise WatcherError("rewind needs the time to go back to")
        changed = control.rewind(session, watch=watch, to_s=wanted.to_s, **who_when)
        return f"the mark is at {wanted.to_s}" if changed else "the mark stands there already", changed
    if verb == "replay":
        return _replay(session, watch, who_when, wanted)
    if verb == "drop":
        n = control.drop(session, watch=watch, delivery=wanted.delivery, sink=wanted.sink, **who_when)
        return f"{n} dead deliveries dropped" if n else "dropped already", bool(n)
    raise ConfigError(
        f"there is no change {verb!r}; there are poll, audit, pause, resume, rewind, replay, drop"
    )


def _replay(session: Session, watch: Watch, who_when: dict[str, Any], wanted: Wanted) -> tuple[str, bool]:
    if wanted.delivery is not None and wanted.file is not None:
        raise RefusedChangeError("a delivery and a file are named: replay one after the other")
    if wanted.delivery is not None:
        n = control.replay_delivery(session, watch=watch, delivery=wanted.delivery, **who_when)
        return f"{n} deliveries resubmitted", bool(n)
    if wanted.file is not None:
        n_runs, n_samples = control.replay_file(session, watch=watch, file_name=wanted.file, **who_when)
        if not n_runs and not n_samples:
            return "it waits or is worked on already", False
        return f"{n_runs} runs and {n_samples} samples resubmitted", True
    n_runs, n_samples, n_deliveries = control.replay(session, watch=watch, **who_when)
    told = f"{n_runs} runs, {n_samples} samples and {n_deliveries} deliveries resubmitted"
    return told, bool(n_runs or n_samples or n_deliveries)
