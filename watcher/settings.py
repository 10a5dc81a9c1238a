"""Settings from environment variables, and nothing else; read by `cli` and `bootstrap` alone.

Every variable starts with `WATCHER_`, two underscores lead into a group (`WATCHER_HTTP__PORT`), and a watch has its
name in between (`WATCHER_WATCHES__CAMERAS__BATCH__MIN_SAMPLES`). The three variables of the official client are
`LIGHTLY_TOKEN`, `LIGHTLY_SERVER_LOCATION` and `LIGHTLY_CA_CERTS`. A secret may also lie in a file named by
`<VARIABLE>_FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from watcher.domain.errors import ConfigError
from watcher.domain.models import (
    BatchRules,
    PollRules,
    SamplingMethod,
    SamplingRules,
    Step,
    UploadMode,
    UploadRules,
    WatchConfig,
)
from watcher.domain.names import explain_bad_name
from watcher.domain.pipeline import order_steps
from watcher.scheduler import build_trigger
from watcher.settings_variables import SecretFiles, build_nested, explain_validation, refuse_unknown

_POLL, _BATCH, _UPLOAD, _SAMPLING = PollRules(), BatchRules(), UploadRules(), SamplingRules()
_WATCH = WatchConfig(name="-", dataset="-")


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class StoreSettings(_Group):
    """The daemon's database."""

    url: SecretStr | None = Field(
        None, description="sqlite:///FILE or postgresql://...; default: a file in the data directory"
    )


class HttpSettings(_Group):
    """The daemon's own pages: status, metrics, health."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")


class PlatformSettings(_Group):
    """The self-hosted platform, inside the daemon or alone."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    token: SecretStr | None = Field(None, description="token it asks for; made at the first start if absent")
    read_url_ttl_s: int = Field(3600, ge=10, le=604800, description="life of a read URL")
    database_url: SecretStr | None = Field(
        None, description="sqlite:///FILE or postgresql://...; default: a file beside its uploads"
    )
    blob_url: str | None = Field(
        None, description="s3://bucket/prefix, gs:// or az:// for uploads; default: a folder"
    )
    url_base: str | None = Field(None, description="what signed URLs start with, behind a proxy")


class LogSettings(_Group):
    """The log on standard error."""

    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: console on a terminal, else json"
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="lowest level printed")


class ApiSettings(_Group):
    """Requests to the API."""

    connect_timeout_s: float = Field(5.0, gt=0, le=300, description="longest wait for a connection")
    read_timeout_s: float = Field(60.0, gt=0, le=3600, description="longest wait for an answer")


class RunSettings(_Group):
    """The jobs."""

    workers: int = Field(2, ge=1, le=64, description="runs in work at once")
    lease_s: float = Field(
        60.0, ge=5, le=3600, description="a run is taken up again this long after its process died"
    )
    time_limit_s: float = Field(21600.0, ge=10, le=604800, description="a run that takes longer is stopped")
    retry_base_s: float = Field(2.0, gt=0, le=3600, description="wait after the first failed attempt")
    retry_cap_s: float = Field(900.0, gt=0, le=86400, description="longest wait between attempts")
    max_attempts: int = Field(100, ge=1, le=10_000, description="attempts before a run is dead")


class ScheduleSettings(_Group):
    """When a watch is polled."""

    interval_s: float = Field(_WATCH.interval_s, ge=0.5, le=86400, description="seconds between polls")
    cron: str | None = Field(None, description="instead: minute hour day month weekday, UTC")
    jitter_s: float = Field(_WATCH.jitter_s, ge=0, le=3600, description="starts up to this much later")


class PollSettings(_Group):
    """How a datasource is listed."""

    hold_back_s: int = Field(
        _POLL.hold_back_s, ge=0, le=3600, description="the window ends this long before now"
    )
    overlap_s: int = Field(_POLL.overlap_s, ge=0, le=604800, description="listed again before the mark")
    max_pages: int = Field(_POLL.max_pages, ge=1, description="a longer listing is an error")
    reconcile_interval_s: float = Field(
        _POLL.reconcile_interval_s, ge=0, le=31_536_000, description="full comparison this often; 0: never"
    )


class BatchSettings(_Group):
    """When waiting samples become a batch."""

    min_samples: int = Field(_BATCH.min_samples, ge=1, description="as soon as this many wait")
    max_wait_s: float = Field(
        _BATCH.max_wait_s, ge=0, le=604800, description="or the oldest has waited this long"
    )
    max_samples: int = Field(_BATCH.max_samples, ge=1, le=100_000, description="no batch is larger")
    max_open: int = Field(_BATCH.max_open, ge=1, le=1000, description="no more batches at once")


class UploadSettings(_Group):
    """What is uploaded of a sample."""

    mode: UploadMode = Field(_UPLOAD.mode, description="metadata, thumbnails or full")
    workers: int = Field(_UPLOAD.workers, ge=1, le=256, description="images in work at once")
    max_bytes: int = Field(_UPLOAD.max_bytes, ge=1, description="larger files are quarantined")
    max_pixels: int = Field(
        _UPLOAD.max_pixels, ge=1, le=178_956_970, description="larger pictures are quarantined"
    )
    settle_s: float = Field(
        _UPLOAD.settle_s, ge=0, le=86400, description="a truncated file is read again after this"
    )
    settle_attempts: int = Field(
        _UPLOAD.settle_attempts, ge=0, le=100, description="this often, then quarantined"
    )


class SamplingSettings(_Group):
    """How samples are picked."""

    method: SamplingMethod = Field(_SAMPLING.method, description="CORESET or RANDOM")
    budget: int = Field(_SAMPLING.budget, ge=1, le=1_000_000, description="picks a batch")
    min_distance: float | None = Field(None, gt=0, description="no two picks closer than this")
    time_limit_s: float = Field(
        _SAMPLING.time_limit_s, gt=0, le=604800, description="longest wait for the server"
    )


def _split_steps(value: object) -> object:
    return [step.strip() for step in value.split(",") if step.strip()] if isinstance(value, str) else value


class WatchSettings(_Group):
    """One watch."""

    dataset: str | None = Field(None, description="dataset on the server; default: the watch's name")
    folder: str | None = Field(
        None, description="embedded platform only: the folder below the data directory"
    )
    steps: Annotated[tuple[Step, ...], BeforeValidator(_split_steps)] = Field(
        _WATCH.steps, description="comma separated: upload, metadata, embed, sampling, deliver"
    )
    schedule: ScheduleSettings = ScheduleSettings()
    poll: PollSettings = PollSettings()
    batch: BatchSettings = BatchSettings()
    upload: UploadSettings = UploadSettings()
    sampling: SamplingSettings = SamplingSettings()

    def build_config(self, name: str) -> WatchConfig:
        """The watch as the daemon takes it, checked as a whole.

        Raises:
            ConfigError: the steps do not fit together, the cron line never fires, the method needs scores.
        """
        if self.sampling.method not in (SamplingMethod.CORESET, SamplingMethod.RANDOM):
            raise ConfigError(
                f"watch {name!r}: the method {self.sampling.method} needs scores, which no step makes yet: "
                "take CORESET or RANDOM"
            )
        if Step.METADATA in self.steps:
            raise ConfigError(
                f"watch {name!r}: the step metadata has no source of metadata yet: leave it out"
            )
        try:
            config = WatchConfig(
                name=name,
                dataset=self.dataset or name,
                folder=self.folder,
                steps=order_steps(self.steps, method=self.sampling.method),
                interval_s=self.schedule.interval_s,
                cron=self.schedule.cron,
                jitter_s=self.schedule.jitter_s,
                poll=PollRules(**dict(self.poll)),
                batch=BatchRules(**dict(self.batch)),
                upload=UploadRules(**dict(self.upload)),
                sampling=SamplingRules(**dict(self.sampling)),
            )
            build_trigger(config)
        except ConfigError as error:
            raise ConfigError(f"watch {name!r}: {error}") from error
        if self.batch.min_samples > self.batch.max_samples:
            raise ConfigError(
                f"watch {name!r}: batch.min_samples {self.batch.min_samples} is above batch.max_samples "
                f"{self.batch.max_samples}, so no batch would ever be full: lower the one or raise the other"
            )
        return config


WatchName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9_-]{0,62}$")]
DEFAULT_WATCH = "incoming"
# Below the data directory, beside the watched folders: see `bootstrap`.
_OWN_FOLDERS = ("platform", "selected", "work")


class Settings(BaseSettings):
    """Everything that can be set; frozen."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="WATCHER_", env_nested_delimiter="__", validate_default=True
    )

    lightly_token: SecretStr | None = Field(
        None, description="token of another server; without it the platform is embedded"
    )
    lightly_server_location: str | None = Field(None, description="URL of that server")
    lightly_ca_certs: Path | None = Field(None, description="file of certificate authorities to trust")
    data_dir: Path = Field(Path("data"), description="incoming images, the store, selected images")
    drain_timeout_s: float = Field(
        25.0, ge=0, le=3600, description="a shutdown waits this long for work under way"
    )
    store: StoreSettings = StoreSettings()
    http: HttpSettings = HttpSettings()
    platform: PlatformSettings = PlatformSettings()
    log: LogSettings = LogSettings()
    api: ApiSettings = ApiSettings()
    runs: RunSettings = RunSettings()
    watches: dict[WatchName, WatchSettings] = Field(default_factory=dict, description="the watches by name")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load_settings` read, so that nothing is taken from a place nobody looked at."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @property
    def is_embedded(self) -> bool:
        """Whether the daemon starts the platform inside itself."""
        return self.lightly_token is None

    def build_watch_configs(self) -> list[WatchConfig]:
        """The watches by name, checked as a whole; one over `incoming/` if none is configured.

        Raises:
            ConfigError: a watch is contradictory, two name one dataset, or none is named for a remote server.
        """
        configured = dict(self.watches)
        if not configured:
            if not self.is_embedded:
                raise ConfigError(
                    "LIGHTLY_TOKEN names another server, but no watch is configured: set "
                    "WATCHER_WATCHES__<NAME>__DATASET to a dataset of that server"
                )
            configured = {DEFAULT_WATCH: WatchSettings()}
        configs: list[WatchConfig] = []
        problems: list[str] = []
        for name, watch in sorted(configured.items()):
            if not self.is_embedded and watch.folder is not None:
                problems.append(
                    f"watch {name!r}: a folder is set, but the datasource of a dataset is configured on its server: "
                    f"remove WATCHER_WATCHES__{name.upper()}__FOLDER"
                )
            chosen = (
                watch if not self.is_embedded else watch.model_copy(update={"folder": watch.folder or name})
            )
            try:
                configs.append(chosen.build_config(name))
            except ConfigError as error:
                problems.append(str(error))
        problems += _find_twins(configs)
        problems += _find_bad_folders(configs)
        if problems:
            raise ConfigError("\n".join(problems))
        return configs

    @property
    def store_url(self) -> str:
        """The store's URL, with its password."""
        if self.store.url is not None:
            return self.store.url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'watcher.sqlite'}"


def _find_twins(configs: list[WatchConfig]) -> list[str]:
    problems = []
    for field in ("dataset", "folder"):
        seen: dict[str, str] = {}
        for config in configs:
            value = getattr(config, field)
            if value is None:
                continue
            if value in seen:
                problems.append(
                    f"the watches {seen[value]!r} and {config.name!r} both name the {field} {value!r}"
                )
            seen[value] = config.name
    return problems


def _find_bad_folders(configs: list[WatchConfig]) -> list[str]:
    """Folders that would leave the data directory, see the daemon's own files, or lie in one another."""
    problems = []
    folders = {config.name: PurePosixPath(config.folder) for config in configs if config.folder is not None}
    for config in configs:
        path = folders.get(config.name)
        if path is None:
            continue
        start = f"watch {config.name!r}: the folder {config.folder!r}"
        if explain_bad_name(str(config.folder)) or str(path) != str(config.folder).strip():
            problems.append(f"{start} is no path below the data directory, such as incoming or cameras/gate")
        elif path.parts[0] in _OWN_FOLDERS:
            problems.append(
                f"{start} is where the daemon itself writes, so its output would become its input: set "
                f"WATCHER_WATCHES__{config.name.upper()}__FOLDER to another one"
            )
        problems += [
            f"{start} lies in {str(other)!r} of the watch {name!r}, so its images would be listed twice"
            for name, other in folders.items()
            if other in path.parents and other.parts
        ]
    return problems


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Reads the settings.

    Args:
        environ: the process's environment.

    Raises:
        ConfigError: all problems in one text: unknown variables with the nearest known ones, values out of range,
            secret files that cannot be read. No value of a secret is in it.
    """
    secrets = SecretFiles(Settings)
    variables = secrets.resolve(environ)
    refuse_unknown(Settings, variables)
    values: dict[str, Any] = build_nested(variables)
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise ConfigError(explain_validation(error, Settings)) from None
    if settings.lightly_token is not None and settings.lightly_server_location is None:
        raise ConfigError(
            "LIGHTLY_TOKEN is set, but not LIGHTLY_SERVER_LOCATION: name the server the token belongs to, or unset "
            "the token to start the platform inside the daemon"
        )
    if settings.lightly_token is None and settings.lightly_server_location is not None:
        raise ConfigError(
            "LIGHTLY_SERVER_LOCATION is set, but not LIGHTLY_TOKEN (or LIGHTLY_TOKEN_FILE): set the token of that "
            "server, or unset the location to start the platform inside the daemon"
        )
    return settings
