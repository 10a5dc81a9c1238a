"""With which key each user's token was hashed.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Adds the column; it is filled when a token is shown next."""
    op.add_column("platform_users", sa.Column("token_key", sa.String(8)))
