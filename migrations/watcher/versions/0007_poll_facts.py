"""What polls learn: facts of the listing, lateness, objects written again; signed statements."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_RELISTED = sa.text("relisted_ms IS NOT NULL")


def upgrade() -> None:
    """Adds the columns and the table; nothing is rewritten."""
    for column in (
        sa.Column("listing_unit", sa.String(length=2)),
        sa.Column("listing_from_end", sa.String(length=9)),
        sa.Column("listing_to_end", sa.String(length=9)),
        sa.Column("probed_ms", sa.BigInteger()),
        sa.Column("lateness_s", sa.BigInteger()),
        sa.Column("lateness_ms", sa.BigInteger()),
        sa.Column("problem", sa.Text()),
    ):
        op.add_column("watches", column)
    for column in (
        sa.Column("etag", sa.Text()),
        sa.Column("relisted_ms", sa.BigInteger()),
        sa.Column("n_overwritten", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("overwritten_ms", sa.BigInteger()),
    ):
        op.add_column("samples", column)
    op.create_index(
        "ix_samples_relisted",
        "samples",
        ["watch_id", "relisted_ms"],
        sqlite_where=_RELISTED,
        postgresql_where=_RELISTED,
    )
    op.create_table(
        "statements",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("day", sa.String(length=10), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_statements_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_statements"),
        sa.UniqueConstraint("watch_id", "day", name="uq_statements_watch_id_day"),
    )
