"""What a delivery holds, in its key for the receiver."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Adds the column; deliveries that are promised already keep their keys, which were made without."""
    op.add_column("handovers", sa.Column("picks_digest", sa.String(64)))
