"""Settings -> objects: folders, secrets, the store, the platform's configuration. Starts nothing."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import SecretStr
from sqlalchemy import make_url

from watcher.data_folder import make_folders, read_or_make_secret
from watcher.database.engine import Database, build_database
from watcher.database.schema import check_schema, has_schema, upgrade_schema
from watcher.database.server import check_server
from watcher.dispatch.queue import check_queue, procrastinate_version, require_postgres, upgrade_queue
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import ConfigError
from watcher.lightly.transport import RequestSeen, Transport
from watcher.lightly.trust import check_authorities
from watcher.logs import get_logger
from watcher.moving import refuse_moved, refuse_unfinished_move, tell_move
from watcher.platform.settings import PlatformConfig
from watcher.platform.store.tables import SCHEMA as PLATFORM_SCHEMA
from watcher.request_rate import limit_rate
from watcher.serving import build_local_url, load_tls, watch_refusals
from watcher.settings.faults import Faults
from watcher.settings.root import Settings
from watcher.store import SCHEMA
from watcher.traces import NO_TRACING, Tracing

if TYPE_CHECKING:
    from watcher.platform.server import PlatformServer

_log = get_logger("bootstrap")

# Settings that an option of the command goes before, and secrets; the platform takes all others as they are.
_TAKEN_ONE_BY_ONE = frozenset(
    ("host", "port", "token", "database_url", "key", "role_access_key_id", "role_secret_access_key")
)
_LOADED_LATE = ("cryptography", "obstore")


def build_platform_config(
    settings: Settings,
    *,
    host: str | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
    token: str | None = None,
    datasource_root: Path | None = None,
) -> PlatformConfig:
    """The platform; what is not given comes from the settings.

    Its state lies in `<WATCHER_DATA_DIR>/platform`, its datasources below the data directory. The token is made at
    the first start and kept beside its data, unless one is configured.

    Raises:
        ConfigError: the token cannot be kept, or is too short.
    """
    state_dir = data_dir or settings.data_dir / "platform"
    if token is None and settings.platform.token is not None:
        token = settings.platform.token.get_secret_value()
    return PlatformConfig(
        token=token or read_or_make_secret(state_dir / "token", what="the platform's token"),
        datasource_root=datasource_root or settings.data_dir,
        data_dir=state_dir,
        host=settings.platform.host if host is None else host,
        port=settings.platform.port if port is None else port,
        **settings.platform.model_dump(exclude=set(_TAKEN_ONE_BY_ONE)),
        database_url=_reveal(settings.platform.database_url),
        role_access_key_id=_reveal(settings.platform.role_access_key_id),
        role_secret_access_key=_reveal(settings.platform.role_secret_access_key),
        key=_reveal(settings.platform.key),
    )


def _reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@contextlib.contextmanager
def needing_platform() -> Iterator[None]:
    """Around what loads the platform, whose libraries a slim installation lacks.

    Two of them are loaded only when they are wanted, but that is not the time to learn that they are missing.

    Raises:
        ConfigError: this installation has no platform.
    """
    missing = next((name for name in _LOADED_LATE if importlib.util.find_spec(name) is None), None)
    if missing is not None:
        raise _build_missing_error(missing)
    try:
        yield
    except ModuleNotFoundError as error:
        raise _build_missing_error(error.name) from error


def _build_missing_error(package: str | None) -> ConfigError:
    return ConfigError(
        f"this installation has no platform: the package {package} is missing. Install "
        "'datasource-watcher[platform]' or take the full image, or set LIGHTLY_TOKEN and LIGHTLY_SERVER_LOCATION to "
        "use another server"
    )


def build_platform_server(
    config: PlatformConfig,
    *,
    clock: Clock | None = None,
    tracing: Tracing = NO_TRACING,
    on_refused: Callable[[], None] = lambda: None,
) -> PlatformServer:
    """The platform, not started. Its libraries are loaded here, so that a daemon of another server does without.

    `on_refused` is called, and must be quick, when a token was refused.

    Raises:
        ConfigError: this installation has no platform.
    """
    with needing_platform():
        from watcher.platform.server import PlatformServer  # noqa: PLC0415 - see above
    return PlatformServer(config, clock=clock, wrap=lambda app: watch_refusals(tracing.wrap(app), on_refused))


def open_store(settings: Settings, *, n_connections: int | None = None) -> Database:
    """The store with its schema checked; a new one is set up, an older or newer one refused.

    Args:
        settings: where it is.
        n_connections: kept open at the most; None for what the settings say.

    Raises:
        ConfigError: the server has too few connections left, a pooler stands before it, the queue does not fit, or
            the store was moved elsewhere.
        SchemaMismatchError: run the named command.
        StoreUnavailableError: the database cannot be reached.
    """
    database = build_database(
        settings.store_url, pool_size=settings.store.pool_size if n_connections is None else n_connections
    )
    _keep_private(database)
    try:
        check_server(database, n_connections=n_connections or settings.store.pool_size)
        if not has_schema(database, SCHEMA):
            upgrade_schema(database, SCHEMA)
            if settings.dispatch == "procrastinate":
                upgrade_queue(database)
            _log.info("store.created")
        refuse_unfinished_move(database)
        refuse_moved(database)
        check_schema(database, SCHEMA)
        database.guard_file()
        if settings.dispatch == "procrastinate":
            check_queue(database)
    except BaseException:
        database.close()
        raise
    return database


def _keep_private(database: Database) -> None:
    """Makes a new SQLite file readable by its owner alone, since read URLs are in it; SQLite's other files follow."""
    if database.is_sqlite:
        path = Path(str(database.engine.url.database))
        with contextlib.suppress(OSError):  # what is wrong with the place is told when the store is opened
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def open_existing_store(settings: Settings, *, warns: bool = True) -> Database:
    """The store for a command that only reads it, beside a daemon or without one.

    Args:
        settings: where it is.
        warns: that it was moved, and what it holds is the past, is told in the log.

    Raises:
        ConfigError: there is none yet.
        SchemaMismatchError: run the named command.
    """
    url = make_url(settings.store_url)
    if url.drivername == "sqlite" and url.database and not Path(url.database).exists():
        raise ConfigError(
            f"there is no store at {url.database} yet: start `watcher run`, or set WATCHER_DATA_DIR"
        )
    database = build_database(settings.store_url)
    try:
        check_schema(database, SCHEMA)
        moved = tell_move(database) if warns else None
        if moved is not None:
            _log.warning("store.is_elsewhere", reason=moved)
    except BaseException:
        database.close()
        raise
    return database


def has_store(settings: Settings) -> bool:
    """Whether the store was made already; nothing is made to find out.

    Raises:
        StoreUnavailableError: the database cannot be reached.
    """
    url = make_url(settings.store_url)
    if url.drivername == "sqlite" and url.database and not Path(url.database).exists():
        return False
    database = build_database(settings.store_url)
    try:
        return has_schema(database, SCHEMA)
    finally:
        database.close()


def check_certificates(settings: Settings) -> None:
    """Opens the files of certificates that the settings name; connects to nothing.

    Raises:
        ConfigError: all that cannot be used, a line each.
    """
    faults = Faults()
    path = settings.lightly_ca_certs
    if path is not None:
        faults.gather(lambda: check_authorities(path), None)
    cert_file, key_file = settings.http.tls_cert_file, settings.http.tls_key_file
    if cert_file is not None and key_file is not None:
        faults.gather(lambda: load_tls(cert_file, key_file), None)
    faults.refuse()


def check_dispatch(settings: Settings) -> None:
    """Refuses a dispatch that this installation and its store cannot do; connects to nothing.

    Raises:
        ConfigError: the extra is missing, or the store is an SQLite file.
    """
    if settings.dispatch == "procrastinate":
        procrastinate_version()
        require_postgres(is_sqlite=make_url(settings.store_url).get_backend_name() == "sqlite")


def migrate(settings: Settings) -> list[str]:
    """Brings every schema of this installation up; harmless if they are there already.

    Returns:
        A line a schema.

    Raises:
        WatcherError: a database cannot be reached, or is newer than this program.
    """
    make_folders(settings, [])
    database = build_database(settings.store_url)
    try:
        lines = [f"store: version {upgrade_schema(database, SCHEMA)}"]
        if settings.dispatch == "procrastinate":
            lines.append(f"queue: procrastinate {upgrade_queue(database)}")
    finally:
        database.close()
    if settings.is_embedded:
        lines.append(f"platform: version {migrate_platform(build_platform_config(settings))}")
    return lines


def migrate_platform(config: PlatformConfig) -> str:
    """Brings the platform's schema up; harmless if it is.

    Returns:
        The version.
    """
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = build_database(config.store_url)
    try:
        return upgrade_schema(database, PLATFORM_SCHEMA)
    finally:
        database.close()


def build_transport(
    settings: Settings,
    *,
    server: str,
    token: str,
    clock: Clock,
    rng: random.Random,
    observer: Callable[[RequestSeen], None],
    stop: threading.Event,
    database: Database | None = None,
) -> Transport:
    """The connections to the API's server; all processes of a store keep to its rate together."""
    transport = Transport(
        server=server,
        token=token,
        ca_certs=settings.lightly_ca_certs,
        connect_timeout_s=settings.api.connect_timeout_s,
        read_timeout_s=settings.api.read_timeout_s,
        clock=clock,
        rng=rng,
        observer=observer,
        stop=stop,
    )
    if settings.api.requests_per_s is not None:
        limit_rate(
            transport,
            settings.api.requests_per_s,
            database=database,
            path=settings.data_dir / "request_rate",
            clock=clock,
            stop=stop,
        )
    return transport


def build_command_transport(settings: Settings, *, database: Database | None) -> Transport:
    """The way of a command to the server beside a daemon, within the rate of both.

    An embedded platform runs in another process then, and is asked at its configured port.

    Args:
        settings: which server.
        database: the store, if there is one; without it the file of the rate in the data directory is asked.
    """
    if settings.is_embedded:
        config = build_platform_config(settings)
        server, token = build_local_url("http", config.host, config.port), config.token
    else:
        assert settings.lightly_server_location is not None
        assert settings.lightly_token is not None
        server, token = settings.lightly_server_location, settings.lightly_token.get_secret_value()
    return build_transport(
        settings,
        server=server,
        token=token,
        clock=SystemClock(),
        rng=random.Random(),  # noqa: S311 - jitter
        observer=lambda _seen: None,
        stop=threading.Event(),
        database=database,
    )
