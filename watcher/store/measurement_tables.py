"""What was measured of samples and batches, and what they lack; columns as in `tables.py`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKey, Index, Integer, String, Table, Text

from watcher.store.table_base import Id, metadata

sample_novelties = Table(
    "sample_novelties",
    metadata,
    Column("sample_id", ForeignKey("samples.id"), primary_key=True, autoincrement=False),
    Column("batch_id", ForeignKey("batches.id"), nullable=False),
    Column("distance", Float),
    Column("nearest", Text),
    Column("is_near_duplicate", Boolean, nullable=False),
    Column("is_repeat", Boolean, nullable=False),
    Index(None, "batch_id"),
)

batch_novelties = Table(
    "batch_novelties",
    metadata,
    Column("batch_id", ForeignKey("batches.id"), primary_key=True, autoincrement=False),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("embedder", String(100), nullable=False),
    Column("n_samples", Integer, nullable=False),
    Column("n_near_duplicates", Integer, nullable=False),
    Column("n_repeats", Integer, nullable=False),
    Column("mean_distance", Float),
    Column("ratio", Float),
    Column("measured_ms", BigInteger, nullable=False),
    Column("n_without_vector", Integer, nullable=False, server_default="0"),
    Index(None, "watch_id", "batch_id"),
)

# Registered samples without a usable vector or score, and why.
lacks = Table(
    "lacks",
    metadata,
    Column("sample_id", ForeignKey("samples.id"), primary_key=True, autoincrement=False),
    Column("lack", String(10), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("noted_ms", BigInteger, nullable=False),
)

dark_samples = Table(
    "dark_samples",
    metadata,
    Column("sample_id", ForeignKey("samples.id"), primary_key=True, autoincrement=False),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("brightness", Float, nullable=False),
    Column("contrast", Float, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Index(None, "watch_id"),
)

# Kept by triggers on `dark_samples`, as `sample_counts` is.
dark_counts = Table(
    "dark_counts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("watch_id", ForeignKey("watches.id"), nullable=False),
    Column("n", BigInteger, nullable=False),
    Index(None, "watch_id"),
)
