"""The daemon's store: the ledger, marks, polls, batches, runs and picks.

Functions take a `Session` first and the rest by keyword; they never commit, never call the network and never read
the clock. The transactions are drawn by the callers, `watcher.poll` and `watcher.jobs.runner`.
"""

from watcher.database.schema import Schema

SCHEMA = Schema(name="watcher", version_table="watcher_schema_version", upgrade_command="watcher migrate")
