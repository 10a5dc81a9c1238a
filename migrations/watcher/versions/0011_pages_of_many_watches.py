"""Dark samples counted by triggers, as samples are; an index over the batches that were sampled."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_SAMPLED = sa.text("sampling_tag_id IS NOT NULL")

# One row for each watch. `changes()` tells whether the statement before found that row.
_SQLITE = (
    """
    CREATE TRIGGER dark_samples_counted_in AFTER INSERT ON dark_samples BEGIN
        UPDATE dark_counts SET n = n + 1 WHERE watch_id = NEW.watch_id;
        INSERT INTO dark_counts (watch_id, n) SELECT NEW.watch_id, 1 WHERE changes() = 0;
    END
    """,
    """
    CREATE TRIGGER dark_samples_counted_out AFTER DELETE ON dark_samples BEGIN
        UPDATE dark_counts SET n = n - 1 WHERE watch_id = OLD.watch_id;
    END
    """,
)

# Each statement appends its difference, so that no two transactions wait for the same row; readers add them up.
_POSTGRES = (
    """
    CREATE FUNCTION count_dark_samples_in() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO dark_counts (watch_id, n) SELECT watch_id, count(*) FROM new_rows GROUP BY watch_id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION count_dark_samples_out() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO dark_counts (watch_id, n) SELECT watch_id, -count(*) FROM old_rows GROUP BY watch_id;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER dark_samples_counted_in AFTER INSERT ON dark_samples REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_dark_samples_in()
    """,
    """
    CREATE TRIGGER dark_samples_counted_out AFTER DELETE ON dark_samples REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_dark_samples_out()
    """,
)


def upgrade() -> None:
    """Makes the table with what is there already, then the triggers and the index."""
    op.create_table(
        "dark_counts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_dark_counts_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dark_counts"),
    )
    op.create_index("ix_dark_counts_watch_id", "dark_counts", ["watch_id"])
    op.execute(
        "INSERT INTO dark_counts (watch_id, n) SELECT watch_id, count(*) FROM dark_samples GROUP BY watch_id"
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRES:
        op.execute(statement)
    op.create_index(
        "ix_batches_sampled",
        "batches",
        ["watch_id", "id"],
        sqlite_where=_SAMPLED,
        postgresql_where=_SAMPLED,
    )
