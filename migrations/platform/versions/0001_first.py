"""First schema.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _dataset() -> sa.Column:
    return sa.Column(
        "dataset_id", sa.String(24), sa.ForeignKey("platform_datasets.id", ondelete="CASCADE"), nullable=False
    )


def upgrade() -> None:
    op.create_table(
        "platform_users",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("max_samples", sa.BigInteger),
        sa.Column("max_datasets", sa.Integer),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "platform_datasets",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("user_id", sa.String(24), sa.ForeignKey("platform_users.id"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("img_type", sa.String(20)),
        sa.Column("creator", sa.String(40)),
        sa.Column("parent_dataset_id", sa.String(24)),
        sa.Column("metadata_configuration_id", sa.String(24)),
        sa.Column("n_samples", sa.BigInteger, nullable=False),
        sa.Column("tags_size", sa.BigInteger, nullable=False),
        sa.Column("size_in_bytes", sa.BigInteger, nullable=False),
        sa.Column("processed_until", sa.BigInteger, nullable=False),
        sa.Column("upload_total", sa.BigInteger),
        sa.Column("upload_processed", sa.BigInteger),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("user_id", "name", name="uq_platform_datasets_user_name"),
    )
    op.create_table(
        "platform_shares",
        sa.Column(
            "dataset_id",
            sa.String(24),
            sa.ForeignKey("platform_datasets.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column(
            "user_id", sa.String(24), sa.ForeignKey("platform_users.id", ondelete="CASCADE"), primary_key=True
        ),
    )
    op.create_index("ix_platform_shares_user", "platform_shares", ["user_id"])
    op.create_table(
        "platform_datasources",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("secrets", sa.Text),
        sa.UniqueConstraint("dataset_id", "purpose", name="uq_platform_datasources_purpose"),
    )
    op.create_table(
        "platform_samples",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("file_name", sa.Text, nullable=False),
        sa.Column("thumb_name", sa.Text),
        sa.Column("type", sa.String(20), nullable=False),
        sa.Column("size_in_bytes", sa.BigInteger, nullable=False),
        sa.Column("metadata_sent", sa.Text),
        sa.Column("metadata_reply", sa.Text),
        sa.Column("exif", sa.Text),
        sa.Column("custom_metadata", sa.Text),
        sa.Column("video_frame", sa.Text),
        sa.Column("crop", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("dataset_id", "file_name", name="uq_platform_samples_name"),
    )
    op.create_index(
        "uq_platform_samples_position", "platform_samples", ["dataset_id", "position", "id"], unique=True
    )
    op.create_table(
        "platform_tags",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("is_initial", sa.Boolean, nullable=False),
        sa.Column("prev_tag_id", sa.String(24)),
        sa.Column("query_tag_id", sa.String(24)),
        sa.Column("preselected_tag_id", sa.String(24)),
        sa.Column("mask", sa.LargeBinary, nullable=False),
        sa.Column("n_set", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String(40), nullable=False),
        sa.Column("run_id", sa.String(24)),
        sa.Column("picks", sa.LargeBinary),
        sa.Column("distances", sa.LargeBinary),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("dataset_id", "name", name="uq_platform_tags_name"),
    )
    op.create_table(
        "platform_embeddings",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("is_processed", sa.Boolean, nullable=False),
        sa.Column("n_rows", sa.BigInteger),
        sa.Column("n_dimensions", sa.Integer),
        sa.Column("digest", sa.String(64)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("dataset_id", "name", name="uq_platform_embeddings_name"),
    )
    op.create_table(
        "platform_projections",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column(
            "embedding_id",
            sa.String(24),
            sa.ForeignKey("platform_embeddings.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("method", sa.String(10), nullable=False),
        sa.Column("coordinates", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("embedding_id", "name", name="uq_platform_projections_name"),
    )
    op.create_table(
        "platform_jobs",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column("user_id", sa.String(24), sa.ForeignKey("platform_users.id"), nullable=False),
        sa.Column("type", sa.String(30), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("claim_key", sa.String(300)),
        sa.Column("lease_owner", sa.String(40)),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("n_total", sa.BigInteger, nullable=False),
        sa.Column("n_processed", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
        sa.Column("finished_at", sa.BigInteger),
        sa.UniqueConstraint("dataset_id", "claim_key", name="uq_platform_jobs_claim"),
    )
    op.create_index("ix_platform_jobs_open", "platform_jobs", ["status", "created_at"])
    op.create_index("ix_platform_jobs_user", "platform_jobs", ["user_id", "created_at"])
    op.create_table(
        "platform_scores",
        sa.Column("id", sa.String(24), primary_key=True),
        _dataset(),
        sa.Column("tag_id", sa.String(24), sa.ForeignKey("platform_tags.id", ondelete="CASCADE")),
        sa.Column("task_name", sa.String(255)),
        sa.Column("prediction_timestamp", sa.BigInteger),
        sa.Column("score_type", sa.String(255), nullable=False),
        sa.Column("values", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("tag_id", "score_type", name="uq_platform_scores_tag"),
        sa.UniqueConstraint(
            "dataset_id", "task_name", "prediction_timestamp", "score_type", name="uq_platform_scores_task"
        ),
    )
    op.create_table(
        "platform_configurations",
        sa.Column("id", sa.String(24), primary_key=True),
        sa.Column("user_id", sa.String(24), sa.ForeignKey("platform_users.id"), nullable=False),
        sa.Column("dataset_id", sa.String(24), sa.ForeignKey("platform_datasets.id", ondelete="CASCADE")),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("configs", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("modified_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_platform_configurations_user", "platform_configurations", ["user_id"])
