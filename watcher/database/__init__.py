"""Connections, transactions and schemas of SQLite and Postgres, for the watcher's store and the platform's."""
