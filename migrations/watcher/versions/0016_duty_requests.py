"""Polls and comparisons that a person asked for, kept until the leader did them."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Adds the table; it is empty until somebody asks."""
    op.create_table(
        "duty_requests",
        sa.Column("watch", sa.String(100), nullable=False),
        sa.Column("duty", sa.String(10), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("answered", sa.BigInteger(), nullable=False),
        sa.Column("asked_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("watch", "duty", name="pk_duty_requests"),
    )
