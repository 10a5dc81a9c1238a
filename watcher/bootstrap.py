"""Settings -> the daemon: builds every object, and starts and stops them in their order."""

from __future__ import annotations

import os
import random
import secrets
import socket
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prometheus_client import PlatformCollector, ProcessCollector
from sqlalchemy import make_url

from watcher.attach import attach_watch
from watcher.database import Database, build_database, check_schema, has_schema, upgrade_schema
from watcher.dispatch.local import LocalDispatcher
from watcher.domain.backoff import Backoff
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import ConfigError
from watcher.domain.models import WatchConfig
from watcher.embedders.descriptor import Descriptor
from watcher.jobs.context import JobParts
from watcher.jobs.runner import Runner, RunRules
from watcher.lightly.transport import RequestSeen, Transport
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.ops.app import OpsParts, build_app
from watcher.ops.collector import StoreCollector
from watcher.ops.control import Control
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.platform.server import PlatformServer
from watcher.platform.settings import PlatformConfig
from watcher.poll import Poller, PollReport
from watcher.scheduler import Scheduler
from watcher.serving import ThreadedServer
from watcher.settings import Settings
from watcher.sinks.manifest import ManifestSink
from watcher.store import SCHEMA, polls, runs
from watcher.store.lock import StoreLock

_log = get_logger("daemon")

EMBEDDED_SERVER = "embedded"
_SCHEDULER_LIMIT_S = 60.0
_WORKER_LIMIT_S = 900.0
_IDLE_POLLS_KEPT_MS = 7 * 86_400 * 1000
_MAINTENANCE_S = 3600.0


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
        read_url_ttl_s=settings.platform.read_url_ttl_s,
    )


def read_or_make_secret(path: Path, *, what: str) -> str:
    """A secret in a file that its owner alone can read; made at the first call.

    Raises:
        ConfigError: the file or its folder cannot be made or read.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            secret = path.read_text(encoding="ascii").strip()
            if secret:
                return secret
            handle = os.open(path, os.O_WRONLY | os.O_TRUNC, 0o600)
        secret = secrets.token_urlsafe(32)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigError(f"{what} cannot be kept in {path}: {error.strerror}") from error
    return secret


def open_store(settings: Settings) -> Database:
    """The store with its schema checked; a new one is set up, an older or newer one refused.

    Raises:
        SchemaMismatchError: run the named command.
        StoreUnavailableError: the database cannot be reached.
    """
    database = build_database(settings.store_url)
    try:
        if not has_schema(database, SCHEMA):
            upgrade_schema(database, SCHEMA)
            _log.info("store.created")
        check_schema(database, SCHEMA)
    except BaseException:
        database.close()
        raise
    return database


def open_existing_store(settings: Settings) -> Database:
    """The store for a command that only reads it, beside a daemon or without one.

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
    except BaseException:
        database.close()
        raise
    return database


def make_folders(settings: Settings, configs: list[WatchConfig]) -> None:
    """Makes the data directory, and with the embedded platform the watched folders.

    Raises:
        ConfigError: a folder cannot be made or written.
    """
    folders = [settings.data_dir, settings.data_dir / "selected", work_dir(settings)]
    folders += [settings.data_dir / config.folder for config in configs if config.folder is not None]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be made: {error.strerror}; set WATCHER_DATA_DIR to a folder this user "
                "may write"
            ) from error
    if not os.access(settings.data_dir, os.W_OK):
        raise ConfigError(
            f"this user may not write to {settings.data_dir}: set WATCHER_DATA_DIR, or change its owner"
        )


def work_dir(settings: Settings) -> Path:
    """Where temporary files go: beside the data, so that they have its room."""
    return settings.data_dir / "work"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the running daemon is reached."""

    http: str
    server: str


class Daemon:
    """The whole daemon. `start` and `stop` belong to one thread; everything else happens in its own."""

    def __init__(self, settings: Settings, *, clock: Clock | None = None) -> None:
        self.settings = settings
        self.configs = settings.build_watch_configs()
        self._clock = clock or SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter
        self._metrics = Metrics()
        self._heartbeats = Heartbeats(self._clock)
        self._access = AccessWatch(self._clock)
        self._stop = threading.Event()
        self._watch_ids: dict[str, int] = {}
        self._database: Database | None = None
        self._lock: StoreLock | None = None
        self._platform: PlatformServer | None = None
        self._transport: Transport | None = None
        self._dispatcher: LocalDispatcher | None = None
        self._scheduler: Scheduler | None = None
        self._http: ThreadedServer | None = None

    def open(self) -> None:
        """Takes the store, starts the embedded platform, and gets ready to poll in the foreground.

        Raises:
            WatcherError: something is missing; whatever was opened before is closed again.
        """
        try:
            self._open()
        except BaseException:
            self.stop()
            raise

    def _open(self) -> None:
        make_folders(self.settings, self.configs)
        database = self._database = open_store(self.settings)
        self._lock = StoreLock(database)
        self._lock.acquire()
        self._metrics.leader.set(1)
        server = self.settings.lightly_server_location
        if self.settings.is_embedded:
            platform_config = build_platform_config(self.settings)
            self._platform = PlatformServer(platform_config, clock=self._clock)
            self._platform.start()
            server, token = self._platform.url, platform_config.token
        else:
            assert self.settings.lightly_token is not None
            token = self.settings.lightly_token.get_secret_value()
        assert server is not None
        self._transport = Transport(
            server=server,
            token=token,
            ca_certs=self.settings.lightly_ca_certs,
            connect_timeout_s=self.settings.api.connect_timeout_s,
            read_timeout_s=self.settings.api.read_timeout_s,
            clock=self._clock,
            rng=self._rng,
            observer=self._observe,
            stop=self._stop,
        )
        with database.write() as session:
            n_left = runs.release_all(session, now_ms=self._now_ms())
        if n_left:
            _log.info("runs.taken_up", n=n_left)
        for config in self.configs:
            self._metrics.init_watch(config.name, steps=config.steps)
        self._dispatcher = LocalDispatcher(
            self._build_runner(database, self._transport),
            n_workers=self.settings.runs.workers,
            stop=self._stop,
            beat=self._heartbeats.beat,
            clock=self._clock,
        )

    def start(self) -> Addresses:
        """Opens everything and starts polling.

        Returns:
            Where to look.

        Raises:
            WatcherError: as `open`; a port that is taken is named.
        """
        self.open()
        assert self._database is not None
        assert self._transport is not None
        assert self._dispatcher is not None
        try:
            scheduler = self._scheduler = Scheduler(
                metrics=self._metrics, beat=lambda: self._heartbeats.beat("scheduler")
            )
            for config in self.configs:
                scheduler.add_watch(config, partial(self.poll, config.name))
            scheduler.add_maintenance("polls", interval_s=_MAINTENANCE_S, task=self._forget_idle_polls)
            self._register_collectors(self._database)
            control_token = secrets.token_urlsafe(32)
            parts = OpsParts(
                database=self._database,
                transport=self._transport,
                registry=self._metrics.registry,
                heartbeats=self._heartbeats,
                access=self._access,
                clock=self._clock,
                control_token=control_token,
                poll_now=scheduler.poll_now,
                next_polls=scheduler.next_polls,
            )
            self._http = ThreadedServer(
                build_app(parts),
                host=self.settings.http.host,
                port=self.settings.http.port,
                name="status page",
                setting="WATCHER_HTTP__PORT",
            )
            self._http.start()
            Control(url=self._http.url, token=control_token).write(self.settings.data_dir)
            self._heartbeats.expect("scheduler", within_s=_SCHEDULER_LIMIT_S)
            for number in range(self.settings.runs.workers):
                self._heartbeats.expect(f"worker-{number}", within_s=_WORKER_LIMIT_S)
            self._dispatcher.start()
            scheduler.start()
        except BaseException:
            self.stop()
            raise
        addresses = Addresses(http=self._http.url, server=self._transport.server)
        _log.info("daemon.started", watches=[config.name for config in self.configs], http=addresses.http)
        return addresses

    def poll(self, name: str) -> PollReport:
        """One cycle of one watch, attached to its dataset first if need be.

        Raises:
            WatcherError: see `Poller.run_cycle`.
        """
        config = next((config for config in self.configs if config.name == name), None)
        if config is None:
            known = ", ".join(config.name for config in self.configs)
            raise ConfigError(f"there is no watch {name!r}; configured are: {known}")
        assert self._database is not None
        assert self._transport is not None
        outcome = "failed"
        try:
            if name not in self._watch_ids:
                watch = attach_watch(
                    self._database,
                    self._transport,
                    config=config,
                    server_identity=self._server_identity(),
                    now_ms=self._now_ms(),
                )
                self._watch_ids[name] = watch.id
            report = Poller(
                database=self._database,
                transport=self._transport,
                config=config,
                watch_id=self._watch_ids[name],
                clock=self._clock,
                metrics=self._metrics,
                stop=self._stop,
            ).run_cycle()
            outcome = "ok"
        finally:
            self._metrics.polls.labels(watch=name, outcome=outcome).inc()
        log = _log.info if report.n_new or report.resumed else _log.debug
        log(
            "poll.ended",
            watch=name,
            listed=report.n_listed,
            new=report.n_new,
            late=report.n_late,
            batches=report.n_batches,
            mark_s=report.to_s,
            resumed=report.resumed,
            duration_s=round(report.duration_s, 3),
        )
        return report

    def run_ready(self) -> int:
        """Runs in the foreground whatever is ready; returns the number of attempts."""
        assert self._dispatcher is not None
        return self._dispatcher.run_until_idle()

    def stop(self) -> bool:
        """Drains and closes everything; harmless where nothing was started.

        Returns:
            False if something was still under way at the end of `WATCHER_DRAIN_TIMEOUT_S`; it goes on at the next
            start.
        """
        begun_s = self._clock.monotonic_s()
        self._stop.set()

        def left_s() -> float:
            return max(0.0, self.settings.drain_timeout_s - (self._clock.monotonic_s() - begun_s))

        drained = True
        if self._scheduler is not None:
            drained &= self._scheduler.stop(timeout_s=left_s())
        if self._dispatcher is not None:
            drained &= self._dispatcher.join(timeout_s=left_s())
        if self._http is not None:
            self._http.stop(timeout_s=5.0)
            Control.remove(self.settings.data_dir)
        if self._transport is not None:
            self._transport.close()
        if self._platform is not None:
            self._platform.stop(timeout_s=max(5.0, left_s()))
        if self._lock is not None:
            self._lock.release()
        if self._database is not None:
            self._database.close()
        return drained

    def _build_runner(self, database: Database, transport: Transport) -> Runner:
        rules = self.settings.runs
        parts = JobParts(
            database=database,
            transport=transport,
            configs={config.name: config for config in self.configs},
            embedder=Descriptor(),
            sink=ManifestSink(self.settings.data_dir / "selected"),
            work_dir=work_dir(self.settings),
            clock=self._clock,
            metrics=self._metrics,
            rng=self._rng,
        )
        return Runner(
            parts,
            owner=f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}",
            rules=RunRules(
                lease_s=rules.lease_s,
                time_limit_s=rules.time_limit_s,
                backoff=Backoff(
                    base_s=rules.retry_base_s, cap_s=rules.retry_cap_s, max_attempts=rules.max_attempts
                ),
            ),
            stop=self._stop,
        )

    def _register_collectors(self, database: Database) -> None:
        registry = self._metrics.registry
        registry.register(StoreCollector(database, configured=frozenset(c.name for c in self.configs)))
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

    def _forget_idle_polls(self) -> None:
        assert self._database is not None
        with self._database.write() as session:
            polls.delete_idle_polls(session, before_ms=self._now_ms() - _IDLE_POLLS_KEPT_MS)

    def _observe(self, seen: RequestSeen) -> None:
        self._metrics.observe_request(endpoint=seen.endpoint, code=seen.code, duration_s=seen.duration_s)
        self._access.observe(endpoint=seen.endpoint, code=seen.code)

    def _server_identity(self) -> str:
        """Names the server in the store; the embedded platform is the same one whatever its port."""
        return (
            EMBEDDED_SERVER
            if self._platform is not None
            else (self._transport.server if self._transport else "")
        )

    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)


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
    finally:
        database.close()
    if settings.is_embedded:
        lines.append(f"platform: version {PlatformServer.migrate(build_platform_config(settings))}")
    return lines
