"""First tables: watches, polls, batches, samples, runs, vectors, picks, deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "watches",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.String(length=24), nullable=False),
        sa.Column("mark_s", sa.BigInteger(), nullable=True),
        sa.Column("remote_mark_s", sa.BigInteger(), nullable=True),
        sa.Column("last_polled_ms", sa.BigInteger(), nullable=True),
        sa.Column("paused_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_watches"),
        sa.UniqueConstraint("name", name="uq_watches_name"),
        sa.UniqueConstraint("server", "dataset_id", name="uq_watches_server_dataset_id"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("verb", sa.String(length=20), nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_audit_log_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_table(
        "batches",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=150), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("steps", sa.Text(), nullable=False),
        sa.Column("n_samples", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("query_tag_id", sa.String(length=24), nullable=True),
        sa.Column("embedding_id", sa.String(length=24), nullable=True),
        sa.Column("sampling_tag_id", sa.String(length=24), nullable=True),
        sa.Column("sampling_tag_name", sa.String(length=150), nullable=True),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_batches_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("watch_id", "number", name="uq_batches_watch_id_number"),
    )
    op.create_index(
        "ix_batches_open",
        "batches",
        ["watch_id", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_table(
        "polls",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("from_s", sa.BigInteger(), nullable=False),
        sa.Column("to_s", sa.BigInteger(), nullable=False),
        sa.Column("overlap_from_s", sa.BigInteger(), nullable=True),
        sa.Column("via", sa.String(length=10), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("n_pages", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_listed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("n_new", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_polls_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_polls"),
    )
    op.create_index("ix_polls_watch_id_id", "polls", ["watch_id", "id"], unique=False)
    op.create_table(
        "reconciles",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=False),
        sa.Column("finished_ms", sa.BigInteger(), nullable=False),
        sa.Column("n_missing", sa.BigInteger(), nullable=False),
        sa.Column("n_unexplained", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_reconciles_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reconciles"),
    )
    op.create_index("ix_reconciles_watch_id_id", "reconciles", ["watch_id", "id"], unique=False)
    op.create_table(
        "vectors",
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("embedder", sa.String(length=100), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_vectors_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", "embedder", "file_name", name="pk_vectors"),
    )
    op.create_table(
        "deliveries",
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("sink", sa.String(length=20), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("n_picks", sa.Integer(), nullable=False),
        sa.Column("delivered_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_deliveries_batch_id"),
        sa.PrimaryKeyConstraint("batch_id", "sink", name="pk_deliveries"),
    )
    op.create_table(
        "runs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("step", sa.String(length=10), nullable=False),
        sa.Column("shard", sa.Integer(), server_default="0", nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("available_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_ms", sa.BigInteger(), nullable=True),
        sa.Column("lease_owner", sa.String(length=100), nullable=True),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("result", sa.Text(), server_default="{}", nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_runs_batch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("batch_id", "step", "shard", name="uq_runs_batch_id_step_shard"),
    )
    op.create_index(
        "ix_runs_claimable",
        "runs",
        ["available_ms"],
        unique=False,
        sqlite_where=sa.text("state IN ('ready', 'running')"),
        postgresql_where=sa.text("state IN ('ready', 'running')"),
    )
    op.create_table(
        "samples",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("read_url", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("via", sa.String(length=10), nullable=False),
        sa.Column("poll_id", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", _ID, nullable=True),
        sa.Column("remote_id", sa.String(length=24), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("available_ms", sa.BigInteger(), nullable=False),
        sa.Column("discovered_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_ms", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("modified_s", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_samples_batch_id"),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_samples_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint("watch_id", "file_name", name="uq_samples_watch_id_file_name"),
    )
    op.create_index("ix_samples_batch_id", "samples", ["batch_id"], unique=False)
    op.create_index(
        "ix_samples_waiting",
        "samples",
        ["watch_id", "available_ms", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'waiting'"),
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index("ix_samples_watch_id_state_id", "samples", ["watch_id", "state", "id"], unique=False)
    op.create_table(
        "picks",
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("sample_id", _ID, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_picks_batch_id"),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_picks_sample_id"),
        sa.PrimaryKeyConstraint("batch_id", "sample_id", name="pk_picks"),
    )
    op.create_index("ix_picks_sample_id", "picks", ["sample_id"], unique=False)
