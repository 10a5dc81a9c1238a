"""Datasets that are deleted by and by, and the turns of users in the queue.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Adds the columns; without a value a dataset is not deleted, and a job counts for no turn."""
    op.add_column("platform_datasets", sa.Column("deleted_at", sa.BigInteger))
    op.add_column("platform_datasets", sa.Column("emptied_at", sa.BigInteger))
    op.add_column("platform_jobs", sa.Column("started_at", sa.BigInteger))
    op.create_index("ix_platform_jobs_turns", "platform_jobs", ["user_id", "type", "started_at"])
