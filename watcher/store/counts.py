"""How many samples of each watch are in which state, without counting a million rows at each scrape.

Triggers of the database keep `sample_counts` in the transaction of each change, whoever makes it. SQLite has one row
for each watch and state. In Postgres each statement appends its differences, so that workers do not wait for each
other's counts; `fold_counts` puts them together now and then. Either way the sum of the rows is the truth, and
`correct_counts` proves it. Dark samples are counted in `dark_counts` the same way.
"""

from __future__ import annotations

from sqlalchemy import delete, func, insert, literal, select, text, union_all
from sqlalchemy.orm import Session

from watcher.domain.models import SampleState
from watcher.store.tables import sample_counts, samples, watches

_FOLD = """
WITH taken AS (DELETE FROM sample_counts RETURNING watch_id, state, n)
INSERT INTO sample_counts (watch_id, state, n)
SELECT watch_id, state, sum(n) FROM taken GROUP BY watch_id, state HAVING sum(n) <> 0
"""
_FOLD_DARK = """
WITH taken AS (DELETE FROM dark_counts RETURNING watch_id, n)
INSERT INTO dark_counts (watch_id, n) SELECT watch_id, sum(n) FROM taken GROUP BY watch_id HAVING sum(n) <> 0
"""


def load_counts(session: Session) -> dict[tuple[str, SampleState], int]:
    """Samples by (watch name, state); every state of every watch is there, with 0 if need be.

    The cost does not depend on the number of samples.
    """
    counts = {
        (name, state): 0 for (name,) in session.execute(select(watches.c.name)) for state in SampleState
    }
    statement = (
        select(watches.c.name, sample_counts.c.state, func.sum(sample_counts.c.n))
        .join(watches, watches.c.id == sample_counts.c.watch_id)
        .group_by(watches.c.name, sample_counts.c.state)
    )
    for name, state, n in session.execute(statement):
        counts[name, SampleState(state)] = int(n)
    return counts


def fold_counts(session: Session) -> None:
    """Puts the differences that Postgres gathered together; harmless at any time, and nothing to do on SQLite."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text(_FOLD))
        session.execute(text(_FOLD_DARK))


def correct_counts(session: Session, *, watch_id: int) -> dict[SampleState, int]:
    """Counts the rows of a watch and puts right what was kept of them.

    Args:
        session: an open transaction that may write.
        watch_id: whose rows; the cost is linear in them.

    Returns:
        How far the kept count of each state was off (truth minus kept); empty, as it should be, if none was.
    """
    truth = (
        select(samples.c.state, func.count().label("n"))
        .where(samples.c.watch_id == watch_id)
        .group_by(samples.c.state)
    )
    kept = (
        select(sample_counts.c.state, (literal(0) - func.sum(sample_counts.c.n)).label("n"))
        .where(sample_counts.c.watch_id == watch_id)
        .group_by(sample_counts.c.state)
    )
    # One statement, so that both halves see the same moment.
    both = union_all(truth, kept).subquery()
    statement = (
        select(both.c.state, func.sum(both.c.n)).group_by(both.c.state).having(func.sum(both.c.n) != 0)
    )
    off = {SampleState(state): int(n) for state, n in session.execute(statement)}
    if off and session.get_bind().dialect.name == "sqlite":
        session.execute(delete(sample_counts).where(sample_counts.c.watch_id == watch_id))
        found = select(samples.c.watch_id, samples.c.state, func.count()).where(
            samples.c.watch_id == watch_id
        )
        session.execute(
            insert(sample_counts).from_select(
                ["watch_id", "state", "n"], found.group_by(samples.c.watch_id, samples.c.state)
            )
        )
    elif off:  # what others append meanwhile is left alone
        session.execute(
            insert(sample_counts),
            [{"watch_id": watch_id, "state": state, "n": n} for state, n in off.items()],
        )
    return off
