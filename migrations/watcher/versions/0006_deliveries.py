"""Deliveries with attempts of their own, several sinks a batch, and the ids that receivers gave."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Deliveries that were made are taken over as done; their old table stays for a daemon that still runs."""
    op.create_table(
        "handovers",
        sa.Column("id", _ID, nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("sink", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_picks", sa.Integer(), nullable=False),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("available_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("progress", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_handovers_batch_id"),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_handovers_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_handovers"),
        sa.UniqueConstraint("batch_id", "sink", name="uq_handovers_batch_id_sink"),
    )
    op.create_index(
        "ix_handovers_claimable",
        "handovers",
        ["available_ms"],
        unique=False,
        sqlite_where=sa.text("state IN ('ready', 'running')"),
        postgresql_where=sa.text("state IN ('ready', 'running')"),
    )
    op.execute(
        "INSERT INTO handovers (batch_id, watch_id, sink, kind, state, attempt, n_picks, location, available_ms, "
        "created_ms, finished_ms) SELECT d.batch_id, b.watch_id, d.sink, d.sink, 'done', 1, d.n_picks, d.location, "
        "d.delivered_ms, d.delivered_ms, d.delivered_ms FROM deliveries d JOIN batches b ON b.id = d.batch_id "
        "ORDER BY d.batch_id, d.sink"
    )
    op.create_table(
        "delivered_tasks",
        sa.Column("delivery_id", _ID, nullable=False),
        sa.Column("sample_id", _ID, nullable=False),
        sa.Column("task_id", sa.String(length=100), nullable=False),
        sa.ForeignKeyConstraint(["delivery_id"], ["handovers.id"], name="fk_delivered_tasks_delivery_id"),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_delivered_tasks_sample_id"),
        sa.PrimaryKeyConstraint("delivery_id", "sample_id", name="pk_delivered_tasks"),
    )
    op.create_index("ix_delivered_tasks_sample_id", "delivered_tasks", ["sample_id"], unique=False)
