"""The groups of settings that belong to the whole process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from watcher.domain.errors import ConfigError
from watcher.domain.statements import split_keys
from watcher.lightly.addresses import split_address

MIN_CONTROL_TOKEN_LENGTH = 12
_NO_HEADER = "must be one line of printable ASCII characters, since a header carries it; how was it copied?"
MIN_STATEMENT_KEY_LENGTH = 32
_MIB = 1024 * 1024
_PLATFORM_KEYS = re.compile(r"[0-9A-Fa-f]{64}(\s+[0-9A-Fa-f]{64})*")


class Group(BaseModel):
    """What all groups share: frozen, and nothing unknown in them."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class StoreSettings(Group):
    """The daemon's database."""

    url: SecretStr | None = Field(
        None, description="sqlite:///FILE or postgresql://...; default: a file in the data directory"
    )
    pool_size: int = Field(
        10, ge=2, le=200, description="connections kept open; as many again for short bursts"
    )


class HttpSettings(Group):
    """The daemon's own pages: metrics and health, and unless `control` has a port of its own the status page too."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    tls_cert_file: Path | None = Field(
        None, description="certificate (PEM, with its chain); with the key the pages are served over HTTPS"
    )
    tls_key_file: Path | None = Field(None, description="its private key (PEM, without a passphrase)")

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("TLS needs both TLS_CERT_FILE and TLS_KEY_FILE: set the other one too")
        return self


class ControlSettings(Group):
    """Changes over HTTP and by command, and who may read the status page."""

    host: str | None = Field(
        None, description="address of control and status page, if not that of the metrics"
    )
    port: int | None = Field(
        None, ge=0, le=65535, description="port of control and status page, if not that of the metrics"
    )

    token: SecretStr | None = Field(
        None,
        min_length=MIN_CONTROL_TOKEN_LENGTH,
        description="token that may change something, beside the one of the local commands",
    )
    name: str = Field(
        "control",
        min_length=1,
        max_length=50,
        pattern=r"^[\w.@-]+$",
        description="what the audit log calls the holder of that token",
    )
    read_needs_token: bool = Field(
        default=False,
        description="status page and reading calls want a token too; metrics and health never do",
    )

    @field_validator("token")
    @classmethod
    def _check_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not fits_a_header(token.get_secret_value()):
            raise ValueError(_NO_HEADER)
        return token

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        if self.host is not None and self.port is None:
            raise ValueError("HOST is set without PORT: set WATCHER_CONTROL__PORT, or unset it")
        return self


def check_control_token(token: str) -> None:
    """Raises ConfigError for a token that the settings would refuse."""
    if len(token) < MIN_CONTROL_TOKEN_LENGTH:
        raise ConfigError(f"WATCHER_CONTROL__TOKEN must have at least {MIN_CONTROL_TOKEN_LENGTH} characters")
    if not fits_a_header(token):
        raise ConfigError(f"WATCHER_CONTROL__TOKEN {_NO_HEADER}")


def fits_a_header(token: str) -> bool:
    """Whether a client can show the token: one line, printable ASCII, no blanks at its ends."""
    return token.isascii() and token.isprintable() and token == token.strip()


def _split_list(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class PlatformSettings(Group):
    """The self-hosted platform, inside the daemon or alone."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    token: SecretStr | None = Field(None, description="token it asks for; made at the first start if absent")
    key: SecretStr | None = Field(
        None,
        description="64 hexadecimal digits that signed URLs and stored credentials hang on, the same in all "
        "replicas; several keys, a line each, the newest first; made at the first start if absent",
    )

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not _PLATFORM_KEYS.fullmatch(key.get_secret_value().strip()):
            raise ValueError("a key has 64 hexadecimal digits; of several each has a line")
        return key

    read_url_ttl_s: int = Field(3600, ge=10, le=604800, description="life of a read URL")
    write_url_ttl_s: int = Field(900, ge=10, le=604800, description="life of a write URL")
    max_body_bytes: int = Field(
        64 * _MIB,
        ge=64 * 1024,
        le=2048 * _MIB,
        description="longest body of a call; uploads have limits of their own",
    )
    max_upload_bytes: int = Field(
        4096 * _MIB, ge=_MIB, le=2**43, description="longest image or CSV of embeddings"
    )
    max_thumbnail_bytes: int = Field(4 * _MIB, ge=1024, le=2048 * _MIB, description="longest thumbnail")
    max_custom_metadata_bytes: int = Field(
        _MIB, ge=1024, le=2048 * _MIB, description="longest custom metadata of one sample"
    )
    max_samples: int = Field(
        10_000_000, ge=1, le=10**9, description="largest dataset, unless a user has a limit of their own"
    )
    max_waiting_jobs: int = Field(
        1000, ge=1, le=1_000_000, description="samplings of one user that may wait, and as many projections"
    )
    page_size: int = Field(1000, ge=1, le=10_000, description="rows of one page of a datasource's listing")
    request_timeout_s: float = Field(
        60.0, ge=1, le=3600, description="longest wait for the next bytes of a body"
    )
    job_lease_s: float = Field(
        60.0, ge=5, le=3600, description="after this long without a sign of life a job is taken over"
    )
    job_retention_days: float = Field(
        30.0, ge=0.01, le=36_500, description="ended jobs are forgotten after this long; what they made stays"
    )
    isolate_jobs: bool = Field(
        default=True, description="compute samplings and projections in processes of their own"
    )
    database_url: SecretStr | None = Field(
        None, description="sqlite:///FILE or postgresql://...; default: a file beside its uploads"
    )
    blob_url: str | None = Field(
        None, description="s3://bucket/prefix, gs:// or az:// for uploads; default: a folder"
    )
    url_base: str | None = Field(None, description="what signed URLs start with, behind a proxy")
    s3_endpoint: str | None = Field(
        None, description="where S3 datasources are, instead of AWS: a MinIO, say"
    )
    gcs_endpoint: str | None = Field(None, description="where GCS datasources are, instead of Google")
    azure_endpoint: str | None = Field(None, description="where AZURE datasources are, instead of Microsoft")
    datasource_endpoints: Annotated[tuple[str, ...], BeforeValidator(_split_list)] = Field(
        (), description="comma separated: the endpoints that OBS datasources may name"
    )
    role_access_key_id: SecretStr | None = Field(
        None,
        description="the platform's own identity at AWS, which roles of S3DelegatedAccess datasources trust",
    )
    role_secret_access_key: SecretStr | None = Field(None, description="the secret of that identity")
    sts_endpoint: str | None = Field(None, description="where roles are assumed, instead of at AWS")


class LogSettings(Group):
    """The log on standard error."""

    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else json"
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="lowest level printed")


class ApiSettings(Group):
    """Requests to the API."""

    connect_timeout_s: float = Field(5.0, gt=0, le=300, description="longest wait for a connection")
    read_timeout_s: float = Field(60.0, gt=0, le=3600, description="longest wait for an answer")
    requests_per_s: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="no more requests to the server than this, of all processes together: with a Postgres store "
        "replicas, workers and commands, else the daemon and the commands beside it",
    )


class LeaderSettings(Group):
    """One leader among the replicas of `watcher run` on one Postgres."""

    lease_s: float = Field(
        15.0, ge=1, le=600, description="another replica leads this long after the leader's last sign of life"
    )


class WorkerSettings(Group):
    """`watcher worker`: runs on many machines."""

    concurrency: int = Field(2, ge=1, le=64, description="runs in work at once in one worker")
    port: int = Field(8081, ge=0, le=65535, description="port of health and metrics; 0 takes a free one")
    sweep_s: float = Field(
        5.0, ge=0.5, le=600, description="lost hints of the queue are looked for this often"
    )


class HealthSettings(Group):
    """When a loop counts as stalled: /health/live fails, and `watcher_stalled_loops` rises."""

    poll_limit_s: float = Field(
        600.0, ge=5, le=86400, description="longest time between two pages of a poll or a full comparison"
    )
    run_limit_s: float = Field(900.0, ge=5, le=86400, description="longest time between two pieces of a run")


class TraceSettings(Group):
    """OpenTelemetry traces, off unless an endpoint is set here or by OTEL_EXPORTER_OTLP_ENDPOINT."""

    endpoint: str | None = Field(
        None, description="collector that speaks OTLP over HTTP, such as http://127.0.0.1:4318"
    )

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            try:
                split_address(endpoint)
            except ConfigError as error:
                raise ValueError(str(error)) from None
        return endpoint


class StatementSettings(Group):
    """The signed statements of the full comparisons."""

    key: SecretStr | None = Field(
        None,
        description="signs the statement of the day, the same for all replicas; several keys, a line each, the newest "
        "first; absent: a file beside the data",
    )

    @field_validator("key")
    @classmethod
    def _check_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None:
            check_statement_keys(key.get_secret_value())
        return key


def check_statement_keys(text: str) -> list[str]:
    """The keys in a text, the newest first.

    Raises:
        ValueError: there is none, or one is too short.
    """
    keys = split_keys(text)
    if not keys or min(map(len, keys)) < MIN_STATEMENT_KEY_LENGTH:
        raise ValueError(f"each key, a line each, must have at least {MIN_STATEMENT_KEY_LENGTH} characters")
    return keys


class AlertSettings(Group):
    """What `watcher alerts` renders."""

    freshness_objective_s: float = Field(
        900.0,
        ge=1,
        le=604800,
        description="a sample is to be through its pipeline within this; limits follow",
    )
    runbook_url: str = Field("deploy/runbook.md", description="where alerts link to, without the section")


class RunSettings(Group):
    """The jobs."""

    workers: int = Field(2, ge=1, le=64, description="runs in work at once")
    delivery_workers: int = Field(2, ge=1, le=64, description="deliveries in work at once")
    max_bytes_in_flight: int = Field(
        64_000_000, ge=1, description="files in memory at once, over all runs of a process"
    )
    max_pixels_in_flight: int = Field(
        24_000_000, ge=1, description="pixels decoded at once, likewise; each takes 4 to 8 bytes"
    )
    lease_s: float = Field(
        60.0, ge=5, le=3600, description="a run is taken up again this long after its process died"
    )
    time_limit_s: float = Field(21600.0, ge=10, le=604800, description="a run that takes longer is stopped")
    retry_base_s: float = Field(2.0, gt=0, le=3600, description="wait after the first failed attempt")
    retry_cap_s: float = Field(900.0, gt=0, le=86400, description="longest wait between attempts")
    max_attempts: int = Field(100, ge=1, le=10_000, description="attempts before a run is dead")
