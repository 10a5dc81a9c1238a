"""The ready runs of a batch in their order, so that a claim need not look at all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_READY = sa.text("state = 'ready'")


def upgrade() -> None:
    """Adds an index over few rows; nothing is rewritten."""
    op.create_index(
        "ix_runs_ready",
        "runs",
        ["batch_id", "available_ms", "id"],
        sqlite_where=_READY,
        postgresql_where=_READY,
    )
