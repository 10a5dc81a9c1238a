"""What a platform needs to know; the commands build it from the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from watcher.domain.errors import ConfigError

_MIB = 1024 * 1024
MIN_TOKEN_LENGTH = 8
FIRST_USER = "owner"


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """Settings of one platform process.

    Attributes:
        token: secret of the first user; more users are added by command.
        datasource_root: every LOCAL datasource lies in or below this folder.
        host: address to listen at.
        port: 0 takes any free one.
        data_dir: keys, uploads and, with SQLite, the database.
        database_url: `sqlite:///...` or `postgresql://...`; a file in `data_dir` if absent.
        url_base: what signed URLs start with; taken from each request if absent.
        blob_url: `s3://bucket/prefix`, `gs://...` or `az://...` for uploads; a folder in `data_dir` if absent.
        read_url_ttl_s: life of a read URL.
        write_url_ttl_s: life of a write URL.
        max_body_bytes: longest JSON body.
        max_upload_bytes: longest image or CSV.
        max_thumbnail_bytes: longest thumbnail.
        max_custom_metadata_bytes: longest custom metadata of one sample.
        max_samples: largest dataset, unless the user has a limit of their own.
        max_waiting_jobs: samplings of one user that wait, and as many projections; more are refused.
        page_size: rows of one page of a datasource listing.
        request_timeout_s: longest wait for the next bytes of a request body.
        isolate_jobs: carries out samplings and projections in processes of their own.
        job_retention_days: ended jobs are forgotten after this long.
        job_lease_s: after this long without a sign of life a job is taken over.
        datasource_endpoints: endpoints (`https://host:port`) that OBS datasources may name.
        s3_endpoint: where S3 datasources are, instead of AWS: a MinIO, say.
        sts_endpoint: where roles are assumed, instead of at AWS.
        role_access_key_id: this server's own identity, which the roles of S3DelegatedAccess datasources trust.
        role_secret_access_key: its secret.
        key: what everything signed and encrypted hangs on, 64 hexadecimal digits; a file in `data_dir` if absent.
        gcs_endpoint: where GCS datasources are, instead of Google.
        azure_endpoint: where AZURE datasources are, instead of Microsoft; the account's name follows it.
    """

    token: str = field(repr=False)
    datasource_root: Path
    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8000
    database_url: str | None = field(default=None, repr=False)
    url_base: str | None = None
    blob_url: str | None = None
    read_url_ttl_s: int = 3600
    write_url_ttl_s: int = 900
    max_body_bytes: int = 64 * _MIB
    max_upload_bytes: int = 4096 * _MIB
    max_thumbnail_bytes: int = 4 * _MIB
    max_custom_metadata_bytes: int = _MIB
    max_samples: int = 10_000_000
    max_waiting_jobs: int = 1000
    page_size: int = 1000
    request_timeout_s: float = 60.0
    job_lease_s: float = 60.0
    job_retention_days: float = 30.0
    isolate_jobs: bool = True
    datasource_endpoints: tuple[str, ...] = ()
    s3_endpoint: str | None = None
    sts_endpoint: str | None = None
    role_access_key_id: str | None = None
    role_secret_access_key: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    gcs_endpoint: str | None = None
    azure_endpoint: str | None = None

    def __post_init__(self) -> None:
        if len(self.token) < MIN_TOKEN_LENGTH or not self.token.isascii() or not self.token.isprintable():
            raise ConfigError(
                f"the platform's token must have at least {MIN_TOKEN_LENGTH} printable ASCII characters"
            )
        if self.url_base is not None and not self.url_base.startswith(("http://", "https://")):
            raise ConfigError("the platform's URL base must start with http:// or https://")
        if not 1 <= self.page_size <= 10_000:
            raise ConfigError(f"the platform's page size must lie between 1 and 10000, got {self.page_size}")

    @property
    def store_url(self) -> str:
        """Where the database is."""
        return self.database_url or f"sqlite:///{self.data_dir / 'platform.sqlite'}"
