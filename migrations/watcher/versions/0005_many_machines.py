"""What many machines need: bounds of shards, leadership, turns of watches, processes, configurations.

Only adds: a program of the version before goes on working beside this one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds columns that may be empty, and tables."""
    op.add_column("runs", sa.Column("first_sample_id", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("last_sample_id", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("dispatched_ms", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_runs_running",
        "runs",
        ["lease_until_ms"],
        unique=False,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_table(
        "turns",
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("served_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_turns_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", name="pk_turns"),
    )
    op.create_table(
        "leadership",
        sa.Column("id", _ID, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=True),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("work_version", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_leadership"),
    )
    op.create_table(
        "processes",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("version", sa.String(length=50), nullable=False),
        sa.Column("work_version", sa.Integer(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_processes"),
    )
    op.create_table(
        "configurations",
        sa.Column("watch", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("set_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("watch", name="pk_configurations"),
    )
