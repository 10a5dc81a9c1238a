"""From when on the sessions of each user's browsers count: a new token ends those before it.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Adds the column; without a value all count, as before."""
    op.add_column("platform_users", sa.Column("sessions_from_s", sa.BigInteger))
