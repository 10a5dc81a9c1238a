"""Inserts that know what to do with a row that is there already, which SQLAlchemy builds for each database apart."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session


def build_insert(session: Session, table: Table) -> Any:
    """An insert into the table with `on_conflict_do_nothing` and `on_conflict_do_update`, alike on both databases."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    return dialect.insert(table)
