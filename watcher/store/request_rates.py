"""Places among the requests to a server, given to all processes from one row.

The generic cell rate algorithm (ITU-T I.371) by the clock of the database: the row keeps when the next place is due.
Postgres only; beside an SQLite store lies a file for it, see `watcher.request_rate`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, bindparam, text
from sqlalchemy.orm import Session

# A row further ahead than this was written by a clock that was turned back since.
_MOST_AHEAD_US = 600_000_000

_NOW_US = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_RESERVE = text(
    f"""
    INSERT INTO request_rates AS r (server, due_us)
    VALUES (:server, {_NOW_US} - :burst_us + :taken_us)
    ON CONFLICT (server) DO UPDATE SET due_us = :taken_us + greatest(
        CASE WHEN r.due_us <= {_NOW_US} + :most_ahead_us THEN r.due_us ELSE 0 END, {_NOW_US} - :burst_us
    )
    RETURNING due_us - :taken_us - {_NOW_US}
    """  # noqa: S608 - a text of ours
).bindparams(*(bindparam(name, type_=BigInteger) for name in ("burst_us", "taken_us", "most_ahead_us")))


def reserve_places(session: Session, *, server: str, n: int, gap_us: int, burst_us: int) -> int:
    """Takes the next places; one statement, whatever their number.

    Args:
        session: an open transaction; others who want places wait until it ends, so it should do nothing else.
        server: whose requests are counted.
        n: how many places.
        gap_us: distance between two places, in microseconds.
        burst_us: how far back a pause counts.

    Returns:
        In how many microseconds the first place is due; 0 or less for at once. The others follow every `gap_us`.
    """
    values = {
        "server": server,
        "taken_us": n * gap_us,
        "burst_us": burst_us,
        # Many processes that wait for a slow rate are no turned clock.
        "most_ahead_us": _MOST_AHEAD_US + 1000 * gap_us,
    }
    return int(session.execute(_RESERVE, values).scalar_one())
