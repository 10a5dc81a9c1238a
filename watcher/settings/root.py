"""Settings from environment variables, and nothing else; read by `cli` and `bootstrap` alone.

Every variable starts with `WATCHER_`, two underscores lead into a group (`WATCHER_HTTP__PORT`), and a watch has its
name in between (`WATCHER_WATCHES__CAMERAS__BATCH__MIN_SAMPLES`). The three variables of the official client are
`LIGHTLY_TOKEN`, `LIGHTLY_SERVER_LOCATION` and `LIGHTLY_CA_CERTS`. A secret may also lie in a file named by
`<VARIABLE>_FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from watcher.domain.errors import ConfigError
from watcher.domain.models import WatchConfig
from watcher.domain.pipeline import WORK_VERSION
from watcher.lightly.addresses import check_server
from watcher.settings.faults import Faults
from watcher.settings.groups import (
    AlertSettings,
    ApiSettings,
    ControlSettings,
    HealthSettings,
    HttpSettings,
    LeaderSettings,
    LogSettings,
    PlatformSettings,
    RunSettings,
    StatementSettings,
    StoreSettings,
    TraceSettings,
    WorkerSettings,
)
from watcher.settings.variables import (
    SecretFiles,
    build_nested,
    explain_validation,
    find_spellings,
    find_unknown,
)
from watcher.settings.watch import (
    DEFAULT_WATCH,
    WatchName,
    WatchSettings,
    find_bad_datasets,
    find_bad_folders,
    find_bad_outputs,
    find_shared_manifests,
    find_twins,
)


class Settings(BaseSettings):
    """Everything that can be set; frozen."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="WATCHER_", env_nested_delimiter="__", validate_default=True
    )

    lightly_token: SecretStr | None = Field(
        None, description="token of another server; without it the platform is embedded"
    )
    lightly_server_location: str | None = Field(None, description="URL of that server")
    lightly_ca_certs: Path | None = Field(
        None, description="file of certificate authorities to trust besides the usual ones"
    )
    data_dir: Path = Field(Path("data"), description="incoming images, the store, selected images")
    drain_timeout_s: float = Field(
        25.0, ge=0, le=3600, description="a shutdown waits this long for work under way"
    )
    store: StoreSettings = StoreSettings()
    http: HttpSettings = HttpSettings()
    control: ControlSettings = ControlSettings()
    platform: PlatformSettings = PlatformSettings()
    log: LogSettings = LogSettings()
    api: ApiSettings = ApiSettings()
    runs: RunSettings = RunSettings()
    health: HealthSettings = HealthSettings()
    alerts: AlertSettings = AlertSettings()
    traces: TraceSettings = TraceSettings()
    statement: StatementSettings = StatementSettings()
    leader: LeaderSettings = LeaderSettings()
    dispatch: Literal["local", "procrastinate"] = Field(
        "local", description="who runs the steps: threads of the leader, or `watcher worker` on any machine"
    )
    work_version: int = Field(
        WORK_VERSION,
        ge=1,
        description="for tests of upgrades: another number does not work with this release's",
    )
    worker: WorkerSettings = WorkerSettings()
    watches: dict[WatchName, WatchSettings] = Field(default_factory=dict, description="the watches by name")

    _secret_files: dict[str, str] = PrivateAttr(default_factory=dict)
    _environ: dict[str, str] = PrivateAttr(default_factory=dict)

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
    def secret_files(self) -> dict[str, str]:
        """Where the secrets that lie in files were found, by variable."""
        return dict(self._secret_files)

    def reload(self) -> Settings:
        """The same settings, with the secrets that lie in files read again.

        Raises:
            ConfigError: one of the files cannot be used, or holds what the settings refuse.
        """
        return load_settings(self._environ)

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
        faults = Faults()
        for name, watch in sorted(configured.items()):
            if not self.is_embedded and watch.folder is not None:
                faults.add(
                    f"watch {name!r}: a folder is set, but the datasource of a dataset is configured on its server: "
                    f"remove WATCHER_WATCHES__{name.upper()}__FOLDER"
                )
            chosen = (
                watch if not self.is_embedded else watch.model_copy(update={"folder": watch.folder or name})
            )
            configs.append(chosen.read_config(name, faults))
        faults.texts += find_twins(configs)
        if self.is_embedded:  # another server's datasets are there already
            faults.texts += find_bad_datasets(configs)
        faults.texts += find_bad_folders(configs)
        faults.texts += find_bad_outputs(configs, data_dir=self.data_dir)
        faults.texts += find_shared_manifests(configs, data_dir=self.data_dir)
        faults.refuse()
        return configs

    @property
    def store_url(self) -> str:
        """The store's URL, with its password."""
        if self.store.url is not None:
            return self.store.url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'watcher.sqlite'}"


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
    unknown = find_unknown(Settings, variables)
    known = {name: value for name, value in variables.items() if name not in unknown}
    problems = [*secrets.problems, *unknown.values(), *find_spellings(known)]
    values: dict[str, Any] = build_nested(known)
    settings: Settings | None = None
    rest: Settings | None = None
    try:
        settings = rest = Settings(**values)
    except ValidationError as error:
        problems.append(explain_validation(error, Settings))
        rest = _leave_out(values, error)
    if settings is not None and not secrets.problems:  # without a secret the rest would seem contradictory
        problems += _find_contradictions(settings)
    if problems or settings is None:
        if rest is not None and not secrets.problems:
            problems += _find_faults_of_watches(rest)
        raise ConfigError("\n".join(problems))
    settings._secret_files.update(secrets.paths)  # noqa: SLF001 - no setting, but where they came from
    settings._environ.update(secrets.environ)  # noqa: SLF001 - likewise
    return settings


def _leave_out(values: Mapping[str, Any], error: ValidationError) -> Settings | None:
    """The settings without the groups and watches that the error names, to tell what else is wrong."""
    rest = {**values, "watches": dict(values.get("watches", {}))}
    for problem in error.errors(include_url=False):
        group, *place = map(str, problem["loc"])
        if group == "watches" and place:
            rest["watches"].pop(place[0], None)
        else:
            rest.pop(group, None)
    try:
        return Settings(**rest)
    except ValidationError:  # one of the whole: nothing more can be told before it is mended
        return None


def _find_faults_of_watches(settings: Settings) -> list[str]:
    """What is wrong within single watches."""
    faults = Faults()
    for name, watch in sorted(settings.watches.items()):
        watch.read_config(name, faults)
    return faults.texts


def _find_contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.lightly_server_location is not None:
        try:
            check_server(settings.lightly_server_location)
        except ConfigError as error:
            problems.append(str(error))
    if settings.lightly_token is not None and settings.lightly_server_location is None:
        problems.append(
            "LIGHTLY_TOKEN is set, but not LIGHTLY_SERVER_LOCATION: name the server the token belongs to, or unset "
            "the token to start the platform inside the daemon"
        )
    if settings.lightly_token is None and settings.lightly_server_location is not None:
        problems.append(
            "LIGHTLY_SERVER_LOCATION is set, but not LIGHTLY_TOKEN (or LIGHTLY_TOKEN_FILE): set the token of that "
            "server, or unset the location to start the platform inside the daemon"
        )
    http, control = settings.http, settings.control
    if control.port and control.port == http.port and (control.host or http.host) == http.host:
        problems.append(
            f"WATCHER_CONTROL__PORT and WATCHER_HTTP__PORT are both {http.port}: unset WATCHER_CONTROL__PORT to serve "
            "all at one address, or choose another port"
        )
    return problems
