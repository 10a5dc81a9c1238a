"""Which embedder a dataset has; sidecars."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables; datasets that have vectors keep the embedder these came from."""
    op.create_table(
        "watch_embedders",
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("embedder", sa.String(length=100), nullable=False),
        sa.Column("chosen_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_watch_embedders_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", name="pk_watch_embedders"),
    )
    op.create_table(
        "sidecars",
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("read_url", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_sidecars_watch_id"),
        sa.PrimaryKeyConstraint("watch_id", "file_name", name="pk_sidecars"),
    )
    op.execute(
        sa.text(
            "INSERT INTO watch_embedders (watch_id, embedder, chosen_ms) "
            "SELECT watch_id, max(embedder), :now_ms FROM vectors GROUP BY watch_id"
        ).bindparams(now_ms=int(time.time() * 1000))
    )
