"""Every name that the last comparison of each watch could not explain."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds the table; it is empty until the next comparison."""
    op.create_table(
        "unexplained",
        sa.Column("watch_id", _ID, nullable=False, autoincrement=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_unexplained_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", "file_name", name="pk_unexplained"),
    )
