"""What the last look at the source of each watch found."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the table; nothing is rewritten."""
    op.create_table(
        "source_checks",
        sa.Column("watch_id", _ID, nullable=False, autoincrement=False),
        sa.Column("checked_ms", sa.BigInteger(), nullable=False),
        sa.Column("n_ahead", sa.Integer(), nullable=False),
        sa.Column("sighted", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_source_checks_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", name="pk_source_checks"),
    )
