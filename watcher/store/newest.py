"""The newest rows of every watch in one statement, by one look into an index for each watch.

SQLite knows no LATERAL, and Postgres would walk the whole table for `id IN (correlated subquery)`, so each gets its
own form. Postgres is given a range of the index in place of equal columns: by equality it may rather walk the whole
table by its ids, where its statistics mislead it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, Select, Table, literal, select, true, tuple_
from sqlalchemy.orm import Session

from watcher.store.tables import watches

_LARGEST = 2**63 - 1


def select_newest(
    session: Session,
    table: Table,
    *,
    limit: int,
    watch_id: int | None,
    by: str = "id",
    equal: Mapping[str, str] | None = None,
    where: Callable[[FromClause], ColumnElement[bool]] | None = None,
) -> Select[Any]:
    """All columns of the newest rows of each watch, in no order.

    Args:
        session: tells which database it is.
        table: with a `watch_id`, and an index over that, the columns of `equal`, and `by`.
        limit: rows of each watch at the most.
        watch_id: only of this watch; None for all.
        by: the column that grows.
        equal: values of text columns.
        where: what else must hold of a row; rows for which it does not are walked past.
    """
    inner = table.alias("newest")
    fixed = dict(equal or {})
    columns = [inner.c.watch_id, *(inner.c[name] for name in fixed), inner.c[by]]
    more = [] if where is None else [where(inner)]
    statement: Select[Any]
    if session.get_bind().dialect.name == "sqlite":
        ids = (
            select(inner.c.id)
            .where(
                inner.c.watch_id == watches.c.id,
                *(inner.c[name] == value for name, value in fixed.items()),
                *more,
            )
            .order_by(inner.c[by].desc())
            .limit(limit)
            .correlate(watches)
        )
        statement = select(table).select_from(watches.join(table, table.c.id.in_(ids)))
    else:
        lowest, highest = (
            tuple_(watches.c.id, *map(literal, fixed.values()), literal(bound, BigInteger))
            for bound in (-1, _LARGEST)
        )
        found = (
            select(inner)
            .where(tuple_(*columns) >= lowest, tuple_(*columns) <= highest, *more)
            .order_by(*(column.desc() for column in columns))
            .limit(limit)
            .correlate(watches)
            .lateral("found")
        )
        statement = select(found).select_from(watches.join(found, true()))
    return statement if watch_id is None else statement.where(watches.c.id == watch_id)
