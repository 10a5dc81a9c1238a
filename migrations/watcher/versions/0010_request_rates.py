"""One row a server, by which all processes together keep to its rate of requests."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Adds the table."""
    op.create_table(
        "request_rates",
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("due_us", sa.BigInteger()),
        sa.PrimaryKeyConstraint("server", name="pk_request_rates"),
    )
