"""Novelty: vectors packed in blocks, what samples and batches were measured, dark samples."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds to `vectors` and makes the tables; packing happens at the next batch."""
    op.add_column("vectors", sa.Column("packed", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "ix_vectors_unpacked",
        "vectors",
        ["watch_id", "embedder"],
        sqlite_where=sa.text("packed = 0"),
        postgresql_where=sa.text("NOT packed"),
    )
    op.create_table(
        "vector_blocks",
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("embedder", sa.String(length=100), nullable=False),
        sa.Column("first_row", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("n_rows", sa.Integer(), nullable=False),
        sa.Column("names", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_vector_blocks_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", "embedder", "first_row", name="pk_vector_blocks"),
    )
    if op.get_bind().dialect.name == "postgresql":
        # Floating point numbers do not compress; trying costs more than reading them.
        op.execute("ALTER TABLE vector_blocks ALTER COLUMN data SET STORAGE EXTERNAL")
    op.create_table(
        "sample_novelties",
        sa.Column("sample_id", _ID, autoincrement=False, nullable=False),
        sa.Column("batch_id", _ID, nullable=False),
        sa.Column("distance", sa.Float(), nullable=True),
        sa.Column("nearest", sa.Text(), nullable=True),
        sa.Column("is_near_duplicate", sa.Boolean(), nullable=False),
        sa.Column("is_repeat", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_sample_novelties_batch_id"),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_sample_novelties_sample_id"),
        sa.PrimaryKeyConstraint("sample_id", name="pk_sample_novelties"),
    )
    op.create_index("ix_sample_novelties_batch_id", "sample_novelties", ["batch_id"])
    op.create_table(
        "batch_novelties",
        sa.Column("batch_id", _ID, autoincrement=False, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("embedder", sa.String(length=100), nullable=False),
        sa.Column("n_samples", sa.Integer(), nullable=False),
        sa.Column("n_near_duplicates", sa.Integer(), nullable=False),
        sa.Column("n_repeats", sa.Integer(), nullable=False),
        sa.Column("mean_distance", sa.Float(), nullable=True),
        sa.Column("ratio", sa.Float(), nullable=True),
        sa.Column("measured_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_novelties_batch_id"),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_batch_novelties_watch_id"),
        sa.PrimaryKeyConstraint("batch_id", name="pk_batch_novelties"),
    )
    op.create_index("ix_batch_novelties_watch_id_batch_id", "batch_novelties", ["watch_id", "batch_id"])
    op.create_table(
        "dark_samples",
        sa.Column("sample_id", _ID, autoincrement=False, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("brightness", sa.Float(), nullable=False),
        sa.Column("contrast", sa.Float(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_dark_samples_sample_id"),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_dark_samples_watch_id"),
        sa.PrimaryKeyConstraint("sample_id", name="pk_dark_samples"),
    )
    op.create_index("ix_dark_samples_watch_id", "dark_samples", ["watch_id"])
