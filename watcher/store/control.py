"""What people change by command: durable, idempotent, each with a line in the audit log (who, when, what)."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.orm import Session

from watcher.domain.errors import RefusedChangeError
from watcher.domain.models import PollState, RunState, SampleState, Watch
from watcher.store import deliveries, embedder_pins, polls, runs, watches
from watcher.store import samples as samples_of
from watcher.store.tables import audit_log, batches, samples
from watcher.store.tables import runs as runs_table
from watcher.store.tables import watches as watches_table

_NEWEST = 1000
_SET_ASIDE = (SampleState.QUARANTINED, SampleState.GONE)


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One change; `at_ms` is unix milliseconds, ids grow with time."""

    id: int
    at_ms: int
    actor: str
    verb: str
    watch: str
    facts: dict[str, Any]


def pause(session: Session, *, watch: Watch, actor: str, now_ms: int) -> bool:
    """Stops polls and new runs of a watch; what runs at the moment ends.

    Returns:
        False if it was paused already.
    """
    if watch.paused_ms is not None:
        return False
    watches.update_pause(session, watch_id=watch.id, paused_ms=now_ms)
    _record(session, watch, actor, "pause", now_ms, {})
    return True


def resume(session: Session, *, watch: Watch, actor: str, now_ms: int) -> bool:
    """Lets a paused watch go on; what arrived meanwhile is found by its next poll.

    Returns:
        False if it was not paused.
    """
    if watch.paused_ms is None:
        return False
    watches.update_pause(session, watch_id=watch.id, paused_ms=None)
    _record(session, watch, actor, "resume", now_ms, {"paused_ms": watch.paused_ms})
    return True


def refuse_paused(watch: Watch) -> None:
    """Refuses what nobody would do for a watch that is paused.

    Raises:
        RefusedChangeError: it is.
    """
    if watch.paused_ms is not None:
        raise RefusedChangeError(
            f"{watch.name!r} is paused, so it is not polled: `watcher resume {watch.name}` lets it go on"
        )


def rewind(session: Session, *, watch: Watch, to_s: int, actor: str, now_ms: int) -> bool:
    """Sets the mark back, so that the next poll lists everything after `to_s` again.

    Known names are not processed twice. An interrupted listing is given up, since it belongs to the old mark.

    Returns:
        False if the mark stands there already.

    Raises:
        RefusedChangeError: the mark would go forward, past objects that were never listed.
    """
    if watch.mark_s is None or to_s > watch.mark_s:
        stands = "it was never polled" if watch.mark_s is None else f"it stands at {watch.mark_s}"
        raise RefusedChangeError(
            f"the mark of {watch.name!r} can only go back, and {stands}: {to_s} would skip objects"
        )
    if to_s == watch.mark_s:
        return False
    unfinished = polls.load_unfinished_poll(session, watch_id=watch.id)
    if unfinished is not None:
        polls.finish_poll(
            session,
            poll_id=unfinished.id,
            state=PollState.FAILED,
            now_ms=now_ms,
            error="the mark was set back",
        )
    watches.rewind_mark(session, watch_id=watch.id, mark_s=to_s)
    _record(session, watch, actor, "rewind", now_ms, {"from_s": watch.mark_s, "to_s": to_s})
    return True


def replay(session: Session, *, watch: Watch, actor: str, now_ms: int) -> tuple[int, int, int]:
    """Gives dead runs, dead deliveries, quarantined samples and vanished ones another chance.

    Returns:
        (runs, samples, deliveries) that were resubmitted.
    """
    n_runs = _revive_runs(session, batches.c.watch_id == watch.id, now_ms=now_ms)
    n_samples = _revive_samples(session, samples.c.watch_id == watch.id, now_ms=now_ms)
    n_deliveries = deliveries.revive_deliveries(session, watch_id=watch.id, now_ms=now_ms)
    if n_runs or n_samples or n_deliveries:
        facts = {"runs": n_runs, "samples": n_samples, "deliveries": n_deliveries}
        _record(session, watch, actor, "replay", now_ms, facts)
    return n_runs, n_samples, n_deliveries


def replay_delivery(session: Session, *, watch: Watch, delivery: str, actor: str, now_ms: int) -> int:
    """Makes deliveries of one batch again, confirmed ones too; receivers know them by their id.

    Args:
        session: an open transaction.
        watch: whose.
        delivery: `<batch>/<sink>`, or `<batch>` for all its sinks.
        actor: who wants it.
        now_ms: the present.

    Returns:
        How many.

    Raises:
        RefusedChangeError: there is no such delivery, or it is under way.
    """
    batch_key, _, sink = delivery.partition("/")
    n = deliveries.revive_deliveries(
        session, watch_id=watch.id, now_ms=now_ms, batch_key=batch_key, sink=sink or None
    )
    if not n:
        raise RefusedChangeError(
            f"{watch.name!r} has no delivery {delivery!r} that could be made again: write <batch>/<sink>, as "
            "`watcher status` shows them; one that is under way ends first"
        )
    _record(session, watch, actor, "replay", now_ms, {"delivery": delivery, "deliveries": n})
    return n


def replay_file(
    session: Session, *, watch: Watch, file_name: str, actor: str, now_ms: int
) -> tuple[int, int]:
    """Gives one file another chance: a quarantined or vanished sample, or the dead runs that hold its batch up.

    Returns:
        (runs, samples) that were resubmitted; none if it waits or is worked on already.

    Raises:
        RefusedChangeError: the watch does not know it, or it went through all steps.
    """
    sample = samples_of.load_sample(session, watch_id=watch.id, file_name=file_name)
    if sample is None:
        raise RefusedChangeError(
            f"{watch.name!r} has never listed {file_name[:200]!r}: write the whole name, as `watcher dead` and "
            "`watcher why` show it"
        )
    n_runs = n_samples = 0
    if sample.state in _SET_ASIDE:
        n_samples = _revive_samples(session, samples.c.id == sample.id, now_ms=now_ms)
    elif sample.batch_id is not None:
        n_runs = _revive_runs(session, batches.c.id == sample.batch_id, now_ms=now_ms)
        if not n_runs and sample.state is SampleState.DONE:
            raise RefusedChangeError(
                f"{file_name[:200]!r} went through all steps, so nothing of it can be resubmitted; "
                f"`watcher replay {watch.name} --delivery BATCH/SINK` hands the picks of a batch over again"
            )
    if n_runs or n_samples:
        facts = {"file": file_name, "runs": n_runs, "samples": n_samples}
        _record(session, watch, actor, "replay", now_ms, facts)
    return n_runs, n_samples


def drop(
    session: Session,
    *,
    watch: Watch,
    actor: str,
    now_ms: int,
    delivery: str | None = None,
    sink: str | None = None,
) -> int:
    """Lets dead deliveries be, such as those to a receiver that is gone for good.

    Args:
        session: an open transaction.
        watch: whose.
        actor: who wants it.
        now_ms: the present.
        delivery: `<batch>/<sink>`, or `<batch>` for all its sinks; or
        sink: all to this sink, whether it is still configured or not.

    Returns:
        How many; none if they were dropped before.

    Raises:
        RefusedChangeError: there is no dead one, or not one of the two is named.
    """
    if (delivery is None) == (sink is None):
        raise RefusedChangeError("what is to be dropped? Name one delivery as <batch>/<sink>, or a sink")
    batch_key, of_delivery = None, None
    if delivery is not None:
        batch_key, _, of_delivery = delivery.partition("/")
    n, n_dropped = deliveries.drop_deliveries(
        session, watch_id=watch.id, now_ms=now_ms, batch_key=batch_key, sink=sink or of_delivery or None
    )
    if not n_dropped:
        what = f"delivery {delivery!r}" if sink is None else f"delivery to {sink!r}"
        raise RefusedChangeError(
            f"{watch.name!r} has no dead {what}: only dead ones can be dropped, and `watcher dead` lists them"
        )
    if n:
        named = {"delivery": delivery} if sink is None else {"sink": sink}
        _record(session, watch, actor, "drop", now_ms, {**named, "deliveries": n})
    return n


def record_request(session: Session, *, watch: Watch, verb: str, actor: str, now_ms: int) -> None:
    """Notes that a poll or an audit was asked for; what came of it stands with the polls and reconciles."""
    _record(session, watch, actor, verb, now_ms, {})


def load_audit_log(
    session: Session, *, limit: int, watch: Watch | None = None, before_id: int | None = None
) -> list[AuditEntry]:
    """The last changes of a watch, or of all, newest first.

    Args:
        session: an open transaction.
        limit: most entries.
        watch: whose changes; all if absent.
        before_id: only older entries than this one.
    """
    statement = (
        select(audit_log, watches_table.c.name)
        .join(watches_table, watches_table.c.id == audit_log.c.watch_id)
        .order_by(audit_log.c.id.desc())
        .limit(limit)
    )
    if watch is not None:
        statement = statement.where(audit_log.c.watch_id == watch.id)
    if before_id is not None:
        statement = statement.where(audit_log.c.id < before_id)
    return [_build_entry(row) for row in session.execute(statement)]


def load_rewinds(session: Session, *, watch: Watch, since_ms: int, before_s: int | None) -> list[AuditEntry]:
    """The rewinds of a watch among the newest thousand entries of the audit log, newest first.

    Args:
        session: an open transaction.
        watch: whose.
        since_ms: only those made later.
        before_s: only those that set the mark before this second; all if absent.
    """
    return [
        entry
        for entry in load_audit_log(session, limit=_NEWEST)
        if (entry.watch, entry.verb) == (watch.name, "rewind")
        and entry.at_ms > since_ms
        and (before_s is None or entry.facts["to_s"] < before_s)
    ]


def _build_entry(row: Any) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at_ms=row.at_ms,
        actor=row.actor,
        verb=row.verb,
        watch=row.name,
        facts=msgspec.json.decode(row.facts),
    )


def note_reembed(session: Session, *, watch: Watch, embedder: str, actor: str, now_ms: int) -> None:
    """Notes that someone has begun to compute all vectors anew."""
    old = embedder_pins.load_embedders(session).get(watch.name)
    _record(session, watch, actor, "reembed", now_ms, {"from": old, "to": embedder})


def finish_reembed(session: Session, *, watch: Watch, embedder: str, actor: str, now_ms: int) -> None:
    """Gives the dataset its new embedder, of which all vectors are there, and forgets those of the old one."""
    embedder_pins.replace_embedder(session, watch_id=watch.id, embedder=embedder, now_ms=now_ms)
    embedder_pins.delete_other_vectors(session, watch_id=watch.id, embedder=embedder)
    _record(session, watch, actor, "reembedded", now_ms, {"to": embedder})


def _revive_runs(session: Session, of: ColumnElement[bool], *, now_ms: int) -> int:
    dead = session.execute(
        select(runs_table.c.id)
        .join(batches, batches.c.id == runs_table.c.batch_id)
        .where(of, runs_table.c.state == RunState.DEAD)
    ).scalars()
    n_runs = 0
    for run_id in dead.all():
        runs.revive_run(session, run_id=run_id, now_ms=now_ms)
        n_runs += 1
    return n_runs


def _revive_samples(session: Session, of: ColumnElement[bool], *, now_ms: int) -> int:
    revived: Any = session.execute(
        update(samples)
        .where(of, samples.c.state.in_(_SET_ASIDE))
        .values(
            state=SampleState.WAITING,
            batch_id=None,
            attempts=samples.c.attempts + 1,
            available_ms=now_ms,
            changed_ms=now_ms,
        )
    )
    return int(revived.rowcount)


def _record(
    session: Session, watch: Watch, actor: str, verb: str, now_ms: int, facts: dict[str, Any]
) -> None:
    session.execute(
        insert(audit_log).values(
            at_ms=now_ms,
            actor=actor[:200],
            verb=verb,
            watch_id=watch.id,
            facts=msgspec.json.encode(facts).decode(),
        )
    )
