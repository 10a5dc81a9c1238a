"""Samples without a usable vector or score, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the table and a count; nothing is rewritten."""
    op.create_table(
        "lacks",
        sa.Column("sample_id", _ID, nullable=False, autoincrement=False),
        sa.Column("lack", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("noted_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_lacks_sample_id"),
        sa.PrimaryKeyConstraint("sample_id", "lack", name="pk_lacks"),
    )
    op.add_column(
        "batch_novelties", sa.Column("n_without_vector", sa.Integer(), nullable=False, server_default="0")
    )
