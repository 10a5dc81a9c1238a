"""The tables. Times are unix milliseconds (`_ms`) or whole seconds (`_s`), both as big integers."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from watcher.store.measurement_tables import (
    batch_novelties,
    dark_counts,
    dark_samples,
    lacks,
    sample_novelties,
)
from watcher.store.table_base import Id, metadata

# Made elsewhere, and offered here as all tables are.
__all__ = ["batch_novelties", "dark_counts", "dark_samples", "lacks", "metadata", "sample_novelties"]


def _partial_index(name: str, *columns: str, where: str) -> Index:
    """An index over the rows for which a condition holds that both databases understand."""
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


watches = Table(
    "watches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("server", Text, nullable=False),
    Column("dataset_id", String(24), nullable=False),
    Column("mark_s", BigInteger),
    Column("remote_mark_s", BigInteger),
    Column("last_polled_ms", BigInteger),
    Column("paused_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    # What the start-up probe found out of the server's listing.
    Column("listing_unit", String(2)),
    Column("listing_from_end", String(9)),
    Column("listing_to_end", String(9)),
    Column("probed_ms", BigInteger),
    # The lateness that decides the overlap, and when it was seen.
    Column("lateness_s", BigInteger),
    Column("lateness_ms", BigInteger),
    # Why the last poll could not begin; nothing after a good one.
    Column("problem", Text),
    UniqueConstraint("server", "dataset_id"),
)

polls = Table(
    "polls",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("state", String(10), nullable=False),
    Column("from_s", BigInteger, nullable=False),
    Column("to_s", BigInteger, nullable=False),
    Column("overlap_from_s", BigInteger),
    Column("via", String(10), nullable=False),
    Column("cursor", Text),
    Column("n_pages", Integer, nullable=False, server_default="0"),
    Column("n_listed", BigInteger, nullable=False, server_default="0"),
    Column("n_new", BigInteger, nullable=False, server_default="0"),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Column("error", Text),
    Index(None, "watch_id", "id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("key", String(150), nullable=False),
    Column("state", String(10), nullable=False),
    Column("steps", Text, nullable=False),
    Column("n_samples", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Column("query_tag_id", String(24)),
    Column("embedding_id", String(24)),
    Column("sampling_tag_id", String(24)),
    Column("sampling_tag_name", String(150)),
    UniqueConstraint("watch_id", "number"),
    _partial_index("ix_batches_open", "watch_id", "id", where="state = 'open'"),
    _partial_index("ix_batches_sampled", "watch_id", "id", where="sampling_tag_id IS NOT NULL"),
)

samples = Table(
    "samples",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("file_name", Text, nullable=False),
    Column("read_url", Text, nullable=False),
    Column("state", String(12), nullable=False),
    Column("via", String(10), nullable=False),
    # No foreign key: checking it at every deletion of an idle poll would scan the ledger.
    Column("poll_id", BigInteger, nullable=False),
    Column("batch_id", ForeignKey("batches.id")),
    Column("remote_id", String(24)),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("available_ms", BigInteger, nullable=False),
    Column("discovered_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
    Column("size_bytes", BigInteger),
    Column("modified_s", BigInteger),
    Column("reason", Text),
    Column("etag", Text),
    Column("relisted_ms", BigInteger),
    Column("n_overwritten", Integer, nullable=False, server_default="0"),
    Column("overwritten_ms", BigInteger),
    UniqueConstraint("watch_id", "file_name"),
    Index(None, "watch_id", "state", "id"),
    _partial_index("ix_samples_waiting", "watch_id", "available_ms", "id", where="state = 'waiting'"),
    Index(None, "batch_id"),
    _partial_index("ix_samples_relisted", "watch_id", "relisted_ms", where="relisted_ms IS NOT NULL"),
)

# Kept by triggers on `samples` (see `store/counts.py`): whoever copies that table leaves this one out.
sample_counts = Table(
    "sample_counts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("state", String(12), nullable=False),
    Column("n", BigInteger, nullable=False),
    Index(None, "watch_id", "state"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Id, primary_key=True),
    Column("batch_id", ForeignKey("batches.id"), nullable=False),
    Column("step", String(10), nullable=False),
    Column("shard", Integer, nullable=False, server_default="0"),
    Column("first_sample_id", BigInteger),
    Column("last_sample_id", BigInteger),
    Column("state", String(10), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("available_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("finished_ms", BigInteger),
    Column("lease_owner", String(100)),
    Column("lease_until_ms", BigInteger),
    Column("error", Text),
    Column("result", Text, nullable=False, server_default="{}"),
    Column("dispatched_ms", BigInteger),
    UniqueConstraint("batch_id", "step", "shard"),
    _partial_index("ix_runs_claimable", "available_ms", where="state IN ('ready', 'running')"),
    _partial_index("ix_runs_ready", "batch_id", "available_ms", "id", where="state = 'ready'"),
    _partial_index("ix_runs_running", "lease_until_ms", where="state = 'running'"),
)

# When a run of each watch was claimed last: a row of its own, so that claims do not wait for a poll's lock.
turns = Table(
    "turns",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True),
    Column("served_ms", BigInteger, nullable=False),
)

# One row: who leads, in which term of office, and until when by the database's clock.
leadership = Table(
    "leadership",
    metadata,
    Column("id", Id, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("holder", String(100)),
    Column("until_ms", BigInteger, nullable=False),
    Column("work_version", Integer),
)

# Replicas and workers that gave a sign of life.
processes = Table(
    "processes",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("kind", String(10), nullable=False),
    Column("version", String(50), nullable=False),
    Column("work_version", Integer, nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)

# Until when the requests of all processes to a server are given away, in microseconds of the database's clock.
request_rates = Table(
    "request_rates", metadata, Column("server", Text, primary_key=True), Column("due_us", BigInteger)
)

# How the leader understands each watch; a process that understands it otherwise takes no run of it.
configurations = Table(
    "configurations",
    metadata,
    Column("watch", String(100), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("set_ms", BigInteger, nullable=False),
)

vectors = Table(
    "vectors",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True),
    Column("embedder", String(100), primary_key=True),
    Column("file_name", Text, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    # Whether it is in `vector_blocks` too.
    Column("packed", Boolean, nullable=False, server_default=false()),
    Index(
        "ix_vectors_unpacked",
        "watch_id",
        "embedder",
        sqlite_where=text("packed = 0"),
        postgresql_where=text("NOT packed"),
    ),
)

# The same vectors again, about a megabyte a row, in the order in which they became known: what a search reads.
vector_blocks = Table(
    "vector_blocks",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True),
    Column("embedder", String(100), primary_key=True),
    Column("first_row", BigInteger, primary_key=True, autoincrement=False),
    Column("n_rows", Integer, nullable=False),
    Column("names", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

# One embedder a dataset: vectors of two of them are never compared.
watch_embedders = Table(
    "watch_embedders",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True),
    Column("embedder", String(100), nullable=False),
    Column("chosen_ms", BigInteger, nullable=False),
)

# Listed files that lie beside pictures and are no samples.
sidecars = Table(
    "sidecars",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True),
    Column("file_name", Text, primary_key=True),
    Column("read_url", Text, nullable=False),
)

picks = Table(
    "picks",
    metadata,
    Column("batch_id", ForeignKey("batches.id"), primary_key=True),
    Column("sample_id", ForeignKey("samples.id"), primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Index(None, "sample_id"),
)

# What the versions before `handovers` wrote, and a daemon of them that still runs writes; nothing reads it any more.
deliveries = Table(
    "deliveries",
    metadata,
    Column("batch_id", ForeignKey("batches.id"), primary_key=True),
    Column("sink", String(20), primary_key=True),
    Column("location", Text, nullable=False),
    Column("n_picks", Integer, nullable=False),
    Column("delivered_ms", BigInteger, nullable=False),
)

# Deliveries on their way to sinks; the name `deliveries` was taken.
handovers = Table(
    "handovers",
    metadata,
    Column("id", Id, primary_key=True),
    Column("batch_id", ForeignKey("batches.id"), nullable=False),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("sink", String(63), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("state", String(10), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("n_picks", Integer, nullable=False),
    Column("location", Text),
    Column("available_ms", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("finished_ms", BigInteger),
    Column("lease_owner", String(100)),
    Column("lease_until_ms", BigInteger),
    Column("error", Text),
    Column("progress", Text, nullable=False, server_default="{}"),
    Column("picks_digest", String(64)),
    UniqueConstraint("batch_id", "sink"),
    _partial_index("ix_handovers_claimable", "available_ms", where="state IN ('ready', 'running')"),
)

delivered_tasks = Table(
    "delivered_tasks",
    metadata,
    Column("delivery_id", ForeignKey("handovers.id"), primary_key=True),
    Column("sample_id", ForeignKey("samples.id"), primary_key=True),
    Column("task_id", String(100), nullable=False),
    Index(None, "sample_id"),
)

# By name: a watch that never reached its server has no row.
duty_problems = Table(
    "duty_problems",
    metadata,
    Column("watch", String(100), primary_key=True),
    Column("duty", String(10), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("problem", Text),
    Column("is_config", Boolean, nullable=False),
)

duty_requests = Table(
    "duty_requests",
    metadata,
    Column("watch", String(100), primary_key=True),
    Column("duty", String(10), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("answered", BigInteger, nullable=False),
    Column("asked_ms", BigInteger, nullable=False),
)

reconciles = Table(
    "reconciles",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("started_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger, nullable=False),
    Column("n_missing", BigInteger, nullable=False),
    Column("n_unexplained", BigInteger, nullable=False),
    Column("report", Text, nullable=False),
    Index(None, "watch_id", "id"),
)

# What the last comparison of each watch found that nothing explains.
unexplained = Table(
    "unexplained",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True, autoincrement=False),
    Column("file_name", Text, primary_key=True),
    Column("fault", Text, nullable=False),
)

statements = Table(
    "statements",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("day", String(10), nullable=False),
    Column("body", Text, nullable=False),
    Column("signature", String(64), nullable=False),
    UniqueConstraint("watch_id", "day"),
)

# The last look at the source of each watch.
source_checks = Table(
    "source_checks",
    metadata,
    Column("watch_id", ForeignKey("watches.id"), primary_key=True, autoincrement=False),
    Column("checked_ms", BigInteger, nullable=False),
    Column("n_ahead", Integer, nullable=False),
    Column("sighted", Text, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("verb", String(20), nullable=False),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("facts", Text, nullable=False),
)
