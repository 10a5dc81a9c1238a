"""Tables. Times are in milliseconds; JSON is kept as text, masks and vectors as little-endian bytes."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from watcher.database.schema import Schema

SCHEMA = Schema(
    name="platform",
    version_table="platform_schema_version",
    upgrade_command="watcher platform --migrate",
)

metadata = MetaData()


def _id() -> Column[str]:
    return Column("id", String(24), primary_key=True)


def _dataset() -> Column[str]:
    return Column(
        "dataset_id", String(24), ForeignKey("platform_datasets.id", ondelete="CASCADE"), nullable=False
    )


users = Table(
    "platform_users",
    metadata,
    _id(),
    Column("name", String(100), nullable=False, unique=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("max_samples", BigInteger),
    Column("max_datasets", Integer),
    Column("created_at", BigInteger, nullable=False),
    # Id of the key that the token was hashed with.
    Column("token_key", String(8)),
    # Sessions of browsers that began before this second have ended; none have if it is absent.
    Column("sessions_from_s", BigInteger),
)

datasets = Table(
    "platform_datasets",
    metadata,
    _id(),
    Column("user_id", String(24), ForeignKey("platform_users.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("type", String(20), nullable=False),
    Column("img_type", String(20)),
    Column("creator", String(40)),
    Column("parent_dataset_id", String(24)),
    Column("metadata_configuration_id", String(24)),
    # The next free position of the mapping, and how far the tags reach.
    Column("n_samples", BigInteger, nullable=False, default=0),
    Column("tags_size", BigInteger, nullable=False, default=0),
    Column("size_in_bytes", BigInteger, nullable=False, default=0),
    Column("processed_until", BigInteger, nullable=False, default=0),
    Column("upload_total", BigInteger),
    Column("upload_processed", BigInteger),
    # Nobody sees a deleted dataset. Its rows and files go by and by, and it goes when no upload can be under way.
    Column("deleted_at", BigInteger),
    Column("emptied_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    UniqueConstraint("user_id", "name", name="uq_platform_datasets_user_name"),
)

shares = Table(
    "platform_shares",
    metadata,
    Column("dataset_id", ForeignKey("platform_datasets.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", ForeignKey("platform_users.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_platform_shares_user", "user_id"),
)

datasources = Table(
    "platform_datasources",
    metadata,
    _id(),
    _dataset(),
    Column("purpose", String(20), nullable=False),
    Column("type", String(20), nullable=False),
    Column("settings", Text, nullable=False),
    Column("secrets", Text),
    UniqueConstraint("dataset_id", "purpose", name="uq_platform_datasources_purpose"),
)

samples = Table(
    "platform_samples",
    metadata,
    _id(),
    _dataset(),
    Column("position", BigInteger, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("thumb_name", Text),
    Column("type", String(20), nullable=False),
    Column("size_in_bytes", BigInteger, nullable=False, default=0),
    # What was sent, and the part of it that the strict client 1.5.26 can read.
    Column("metadata_sent", Text),
    Column("metadata_reply", Text),
    Column("exif", Text),
    Column("custom_metadata", Text),
    Column("video_frame", Text),
    Column("crop", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    UniqueConstraint("dataset_id", "file_name", name="uq_platform_samples_name"),
    # Covers the mapping by id; the mapping by name reads the rows in the same order.
    Index("uq_platform_samples_position", "dataset_id", "position", "id", unique=True),
)

tags = Table(
    "platform_tags",
    metadata,
    _id(),
    _dataset(),
    Column("name", String(255), nullable=False),
    Column("is_initial", Boolean, nullable=False, default=False),
    Column("prev_tag_id", String(24)),
    Column("query_tag_id", String(24)),
    Column("preselected_tag_id", String(24)),
    Column("mask", LargeBinary, nullable=False),
    Column("n_set", BigInteger, nullable=False),
    Column("creator", String(40), nullable=False),
    Column("run_id", String(24)),
    # Of a sampling: positions in the order of picking as int64, and their distances as float32.
    Column("picks", LargeBinary),
    Column("distances", LargeBinary),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    UniqueConstraint("dataset_id", "name", name="uq_platform_tags_name"),
)

embeddings = Table(
    "platform_embeddings",
    metadata,
    _id(),
    _dataset(),
    Column("name", String(255), nullable=False),
    Column("is_processed", Boolean, nullable=False, default=False),
    Column("n_rows", BigInteger),
    Column("n_dimensions", Integer),
    # Names the blobs of the accepted upload, and tells a repeat from another content.
    Column("digest", String(64)),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("dataset_id", "name", name="uq_platform_embeddings_name"),
)

projections = Table(
    "platform_projections",
    metadata,
    _id(),
    _dataset(),
    Column("embedding_id", ForeignKey("platform_embeddings.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("method", String(10), nullable=False),
    # n x 2 float64.
    Column("coordinates", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("embedding_id", "name", name="uq_platform_projections_name"),
)

jobs = Table(
    "platform_jobs",
    metadata,
    _id(),
    _dataset(),
    Column("user_id", String(24), ForeignKey("platform_users.id"), nullable=False),
    Column("type", String(30), nullable=False),
    Column("status", String(10), nullable=False),
    Column("arguments", Text, nullable=False),
    # What an unfinished job alone may make; null once it ended.
    Column("claim_key", String(300)),
    Column("lease_owner", String(40)),
    Column("lease_until", BigInteger),
    Column("attempts", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("n_total", BigInteger, nullable=False, default=0),
    Column("n_processed", BigInteger, nullable=False, default=0),
    Column("error", Text),
    Column("result", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    # When it was taken last: users take turns.
    Column("started_at", BigInteger),
    UniqueConstraint("dataset_id", "claim_key", name="uq_platform_jobs_claim"),
    Index("ix_platform_jobs_turns", "user_id", "type", "started_at"),
    Index("ix_platform_jobs_open", "status", "created_at"),
    Index("ix_platform_jobs_user", "user_id", "created_at"),
)

scores = Table(
    "platform_scores",
    metadata,
    _id(),
    _dataset(),
    # Of a tag, or of a whole dataset with a task.
    Column("tag_id", String(24), ForeignKey("platform_tags.id", ondelete="CASCADE")),
    Column("task_name", String(255)),
    Column("prediction_timestamp", BigInteger),
    Column("score_type", String(255), nullable=False),
    # float64.
    Column("values", LargeBinary, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("tag_id", "score_type", name="uq_platform_scores_tag"),
    UniqueConstraint(
        "dataset_id", "task_name", "prediction_timestamp", "score_type", name="uq_platform_scores_task"
    ),
)

configurations = Table(
    "platform_configurations",
    metadata,
    _id(),
    Column("user_id", String(24), ForeignKey("platform_users.id"), nullable=False),
    Column("dataset_id", String(24), ForeignKey("platform_datasets.id", ondelete="CASCADE")),
    Column("name", Text, nullable=False),
    Column("configs", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("modified_at", BigInteger, nullable=False),
    Index("ix_platform_configurations_user", "user_id"),
)
