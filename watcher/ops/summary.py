"""All watches at a glance: a fixed number of statements, whatever the number of watches and samples."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from watcher.database.engine import Database
from watcher.domain.models import SampleState
from watcher.ops.arrivals import HOURS, Arrivals, Sparkline, draw
from watcher.ops.overview import load_unreached, tell_poll_problem
from watcher.store import latest, samples, watches
from watcher.store.counts import load_counts
from watcher.store.duty_problems import load_problems
from watcher.store.latest import LastBatch, LastPoll

_PICKS = 12


class WatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A watch in one line.

    Attributes:
        health: `paused`, `failing` (the last poll), `trouble` (something was given up) or `fine`.
        problem: why the last poll failed, where its row does not tell.
        n_set_aside: quarantined and vanished samples.
        lag_s: seconds from the mark to now; None before the first poll.
        oldest_pending_ms: discovery of the oldest unfinished sample.
    """

    name: str
    health: str
    mark_s: int | None
    lag_s: float | None
    next_poll_s: float | None
    oldest_pending_ms: int | None
    samples: dict[str, int]
    n_set_aside: int
    n_dead_runs: int
    last_poll: LastPoll | None
    problem: str | None
    last_batch: LastBatch | None
    arrivals: Sparkline


class PickSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A pick of any watch."""

    watch: str
    sample_id: int
    file_name: str
    rank: int


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """All watches at one time (unix milliseconds).

    Attributes:
        unreached: watches that never reached their server, with the reason.
    """

    now_ms: int
    watches: list[WatchSummary]
    unreached: dict[str, str]
    picks: list[PickSummary]


def load_summary(
    database: Database, arrivals: Arrivals, *, now_ms: int, next_polls: Mapping[str, datetime]
) -> Summary:
    """Reads it in one transaction."""
    with database.read() as session:
        rows = watches.load_watches(session)
        counts = load_counts(session)
        oldest = samples.load_oldest_pending(session)
        last_polls = latest.load_last_polls(session)
        last_batches = latest.load_last_batches(session)
        dead = latest.count_dead_runs(session)
        arrived = arrivals.load(session, now_ms=now_ms)
        picked = latest.load_latest_picks(session, limit=_PICKS)
        problems = load_problems(session)
        unreached = load_unreached(session, problems)
    summaries = []
    for row in rows:
        last_poll = last_polls.get(row.name)
        n_dead_runs = dead.get(row.name, 0)
        n_set_aside = counts[row.name, SampleState.QUARANTINED] + counts[row.name, SampleState.GONE]
        next_poll = next_polls.get(row.name)
        problem = row.problem or tell_poll_problem(problems, row.name, last_poll)
        if row.paused_ms is not None:
            health = "paused"
        elif problem or (last_poll is not None and last_poll.error):
            health = "failing"
        else:
            health = "trouble" if n_dead_runs or n_set_aside else "fine"
        summaries.append(
            WatchSummary(
                name=row.name,
                health=health,
                mark_s=row.mark_s,
                lag_s=None if row.mark_s is None else round(now_ms / 1000 - row.mark_s, 1),
                next_poll_s=None if next_poll is None else next_poll.timestamp(),
                oldest_pending_ms=oldest.get(row.name),
                samples={state.value: counts[row.name, state] for state in SampleState},
                n_set_aside=n_set_aside,
                n_dead_runs=n_dead_runs,
                last_poll=last_poll,
                problem=problem,
                last_batch=last_batches.get(row.name),
                arrivals=draw(arrived.get(row.name, [0] * HOURS)),
            )
        )
    return Summary(
        now_ms=now_ms,
        watches=summaries,
        unreached=unreached,
        picks=[
            PickSummary(watch=watch, sample_id=pick.sample_id, file_name=pick.file_name, rank=pick.rank)
            for watch, pick in picked
        ],
    )
