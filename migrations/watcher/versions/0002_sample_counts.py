"""Samples counted by watch and state in a table of their own, kept by triggers in the transaction of each change."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# One row for each watch and state. `changes()` tells whether the statement before found that row.
_SQLITE = (
    """
    CREATE TRIGGER samples_counted_in AFTER INSERT ON samples BEGIN
        UPDATE sample_counts SET n = n + 1 WHERE watch_id = NEW.watch_id AND state = NEW.state;
        INSERT INTO sample_counts (watch_id, state, n) SELECT NEW.watch_id, NEW.state, 1 WHERE changes() = 0;
    END
    """,
    """
    CREATE TRIGGER samples_counted_over AFTER UPDATE OF watch_id, state ON samples
    WHEN OLD.state <> NEW.state OR OLD.watch_id <> NEW.watch_id BEGIN
        UPDATE sample_counts SET n = n - 1 WHERE watch_id = OLD.watch_id AND state = OLD.state;
        UPDATE sample_counts SET n = n + 1 WHERE watch_id = NEW.watch_id AND state = NEW.state;
        INSERT INTO sample_counts (watch_id, state, n) SELECT NEW.watch_id, NEW.state, 1 WHERE changes() = 0;
    END
    """,
    """
    CREATE TRIGGER samples_counted_out AFTER DELETE ON samples BEGIN
        UPDATE sample_counts SET n = n - 1 WHERE watch_id = OLD.watch_id AND state = OLD.state;
    END
    """,
)

# Each statement appends its differences, so that no two transactions wait for the same row; readers add them up.
_POSTGRES = (
    """
    CREATE FUNCTION count_samples_in() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO sample_counts (watch_id, state, n)
        SELECT watch_id, state, count(*) FROM new_rows GROUP BY watch_id, state;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION count_samples_over() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO sample_counts (watch_id, state, n)
        SELECT watch_id, state, sum(change) FROM (
            SELECT watch_id, state, 1 AS change FROM new_rows
            UNION ALL SELECT watch_id, state, -1 FROM old_rows
        ) AS changes GROUP BY watch_id, state HAVING sum(change) <> 0;
        RETURN NULL;
    END $$
    """,
    """
    CREATE FUNCTION count_samples_out() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO sample_counts (watch_id, state, n)
        SELECT watch_id, state, -count(*) FROM old_rows GROUP BY watch_id, state;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER samples_counted_in AFTER INSERT ON samples REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_samples_in()
    """,
    """
    CREATE TRIGGER samples_counted_over AFTER UPDATE ON samples
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_samples_over()
    """,
    """
    CREATE TRIGGER samples_counted_out AFTER DELETE ON samples REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_samples_out()
    """,
)


def upgrade() -> None:
    """Makes the table with what is there already, then the triggers."""
    op.create_table(
        "sample_counts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("watch_id", _ID, nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["watch_id"], ["watches.id"], name="fk_sample_counts_watch_id"),
        sa.PrimaryKeyConstraint("id", name="pk_sample_counts"),
    )
    op.create_index("ix_sample_counts_watch_id_state", "sample_counts", ["watch_id", "state"])
    op.execute(
        "INSERT INTO sample_counts (watch_id, state, n) "
        "SELECT watch_id, state, count(*) FROM samples GROUP BY watch_id, state"
    )
    for statement in _SQLITE if op.get_bind().dialect.name == "sqlite" else _POSTGRES:
        op.execute(statement)
