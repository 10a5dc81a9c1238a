"""Why the last poll or comparison of a watch failed, also of a watch that never reached its server."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Adds the table; it is empty until something fails."""
    op.create_table(
        "duty_problems",
        sa.Column("watch", sa.String(100), nullable=False),
        sa.Column("duty", sa.String(10), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("problem", sa.Text()),
        sa.Column("is_config", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("watch", "duty", name="pk_duty_problems"),
    )
