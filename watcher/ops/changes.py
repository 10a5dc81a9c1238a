"""Changes of a watch in the store: pause, resume, rewind, replay; the same by command and over HTTP."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from watcher.domain.errors import ConfigError, UnknownWatchError, WatcherError
from watcher.domain.models import Watch
from watcher.store import control, watches

_MOST_NAMED = 20


def apply_change(
    session: Session,
    *,
    watch: str,
    verb: str,
    actor: str,
    now_ms: int,
    to_s: int | None = None,
    delivery: str | None = None,
) -> tuple[str, bool]:
    """Carries out `pause`, `resume`, `rewind` or `replay` in the transaction.

    Args:
        session: an open transaction.
        watch: name of the watch.
        verb: which change.
        actor: who wants it, for the audit log.
        now_ms: the present.
        to_s: where `rewind` sets the mark, unix seconds.
        delivery: what alone `replay` makes again, `<batch>/<sink>` or `<batch>`.

    Returns:
        What was done, in words, and whether anything changed.

    Raises:
        ConfigError: there is no such watch or verb.
        RefusedChangeError: the mark would go forward; there is no such delivery.
    """
    row = find_watch(session, watch)
    return _apply(session, row, verb, {"actor": actor, "now_ms": now_ms}, to_s, delivery)


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
    to_s: int | None,
    delivery: str | None,
) -> tuple[str, bool]:
    if verb == "pause":
        changed = control.pause(session, watch=watch, **who_when)
        return "paused" if changed else "it was paused already", changed
    if verb == "resume":
        changed = control.resume(session, watch=watch, **who_when)
        return "resumed" if changed else "it was not paused", changed
    if verb == "rewind":
        if to_s is None:
            raise WatcherError("rewind needs the time to go back to")
        changed = control.rewind(session, watch=watch, to_s=to_s, **who_when)
        return f"the mark is at {to_s}" if changed else "the mark stands there already", changed
    if verb == "replay" and delivery is not None:
        n = control.replay_delivery(session, watch=watch, delivery=delivery, **who_when)
        return f"{n} deliveries resubmitted", bool(n)
    if verb == "replay":
        n_runs, n_samples, n_deliveries = control.replay(session, watch=watch, **who_when)
        told = f"{n_runs} runs, {n_samples} samples and {n_deliveries} deliveries resubmitted"
        return told, bool(n_runs or n_samples or n_deliveries)
    raise ConfigError(f"there is no change {verb!r}; there are poll, audit, pause, resume, rewind, replay")
