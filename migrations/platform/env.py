"""Alembic's entry for the platform's database; `watcher.database.schema` hands over the connection."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    transaction_per_migration=False,
    transactional_ddl=False,
)
context.run_migrations()
