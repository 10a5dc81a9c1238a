"""The daemon: starts and stops every part in its order, and polls a watch when the scheduler says so."""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from watcher.bootstrap import (
    build_platform_config,
    build_platform_server,
    build_transport,
    check_certificates,
    open_store,
)
from watcher.bootstrap_jobs import build_queue
from watcher.data_folder import StatementKey, make_folders
from watcher.database.engine import Database
from watcher.dispatch.queue import RunQueue
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import ConfigError, StoreLockedError
from watcher.domain.models import WatchConfig
from watcher.leadership import Leadership
from watcher.lightly.transport import RequestSeen, Transport
from watcher.logs import get_logger
from watcher.metrics import Metrics
from watcher.ops.control import Control
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.ops.parts import OpsParts
from watcher.ops.publish import publish_states
from watcher.ops.tokens import ControlTokens
from watcher.poll import PollReport
from watcher.presence import Presence
from watcher.rotation import Rotation
from watcher.scheduler import Scheduler, compute_longest_interval_s
from watcher.settings.groups import check_control_token
from watcher.settings.root import Settings
from watcher.site import Site
from watcher.standby import ServerInquiry, Standby, release_in_time
from watcher.store.reconciles import ReconcileReport
from watcher.term import SCHEDULER_LIMIT_S, Term
from watcher.traces import open_tracing

if TYPE_CHECKING:
    from watcher.platform.server import PlatformServer

_log = get_logger("daemon")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the running daemon is reached."""

    http: str
    probes: str
    server: str


class Daemon:
    """The whole daemon. `start` and `stop` belong to one thread; everything else happens in its own."""

    def __init__(
        self, settings: Settings, *, clock: Clock | None = None, changing: str | None = None
    ) -> None:
        self.settings = settings
        self._changing = changing
        self.configs = settings.build_watch_configs()
        self._clock = clock or SystemClock()
        self._rng = random.Random()  # noqa: S311 - jitter
        self._metrics = Metrics()
        self._heartbeats = Heartbeats(self._clock)
        self._access = AccessWatch(self._clock)
        self._stop = threading.Event()
        self._term: Term | None = None  # None while another process leads
        self._store: Database | None = None
        self._leadership: Leadership | None = None
        self._standby: Standby | None = None
        token = settings.control.token
        self._configured_token = None if token is None else token.get_secret_value()
        self._platform: PlatformServer | None = None
        self._transport: Transport | None = None
        self._queue: RunQueue | None = None
        self._presence: Presence | None = None
        self._http: Site | None = None
        self._rotation = Rotation(settings)
        self._statement_key = StatementKey(settings)
        self._control_token = secrets.token_urlsafe(32)

    def open(self) -> None:
        """Takes the lead, starts the embedded platform, and gets ready to poll in the foreground.

        Raises:
            WatcherError: something is missing, or another process leads; whatever was opened before is closed again.
        """
        self._open_or_close(follow=False, waits=False)

    def _open_or_close(self, *, follow: bool, waits: bool) -> bool:
        try:
            return self._open(follow=follow, waits=waits)
        except BaseException:
            self.stop()
            raise

    def _open(self, *, follow: bool, waits: bool) -> bool:
        """Opens what leaders and followers have; tells whether this process leads."""
        check_certificates(self.settings)
        make_folders(self.settings, self.configs)
        store = self._store = open_store(self.settings)
        self._leadership = Leadership(
            store,
            lease_s=self.settings.leader.lease_s,
            clock=self._clock,
            metrics=self._metrics,
            work_version=self.settings.work_version,
        )
        leads = True
        try:
            # With the platform inside there is one daemon; what it waits for is the lease of a killed predecessor.
            self._leadership.acquire(
                wait_s=0.0 if follow or not waits else 1.5 * self.settings.leader.lease_s
            )
        except StoreLockedError as error:
            if not follow:
                raise
            leads = False
            _log.info("daemon.follows", reason=str(error))
        server = self.settings.lightly_server_location
        if self.settings.is_embedded:
            platform_config = build_platform_config(self.settings)
            self._platform = build_platform_server(
                platform_config,
                clock=self._clock,
                tracing=open_tracing(self.settings.traces.endpoint),
                on_refused=self._rotation.wake,
            )
            self._platform.start()
            server, token = self._platform.url, platform_config.token
        else:
            assert self.settings.lightly_token is not None
            token = self.settings.lightly_token.get_secret_value()
        assert server is not None
        self._transport = build_transport(
            self.settings,
            server=server,
            token=token,
            clock=self._clock,
            rng=self._rng,
            observer=self._observe,
            stop=self._stop,
            database=store,
        )
        for config in self.configs:
            sinks = [sink.name for sink in config.deliver.sinks]
            self._metrics.init_watch(config.name, steps=config.steps, sinks=sinks)
            self._metrics.describe_watch(
                config.name,
                poll_interval_s=compute_longest_interval_s(config, now=datetime.now(UTC)),
                silent_after_s=config.silent_after_s,
            )
        if self.settings.dispatch == "procrastinate":
            self._queue = build_queue(self.configs, database=store, clock=self._clock)
        if leads:
            self._begin_term()
        return leads

    def lend(self) -> tuple[Database, Transport]:
        """The store and the API of an opened daemon, for commands that only look."""
        assert self._store is not None
        assert self._transport is not None
        return self._store, self._transport

    def start(self) -> Addresses:
        """Opens everything and starts polling, or waits for the lead while another replica has it.

        Returns:
            Where to look.

        Raises:
            WatcherError: as `open`; a port that is taken is named.
        """
        # The embedded platform belongs to one process, and so does an SQLite file.
        leads = self._open_or_close(follow=not self.settings.is_embedded, waits=True)
        store = self._store_database()
        assert self._transport is not None
        try:
            publish_states(
                self._metrics,
                database=store,
                access=self._access,
                heartbeats=self._heartbeats,
                clock=self._clock,
                watches=[config.name for config in self.configs],
                data_dir=self.settings.data_dir,
                is_published=lambda: self._term is not None,
            )
            parts = OpsParts(
                database=store,
                transport=self._transport,
                registry=self._metrics.registry,
                heartbeats=self._heartbeats,
                access=self._access,
                clock=self._clock,
                tokens=ControlTokens(
                    local=self._control_token,
                    configured=lambda: self._configured_token,
                    look=self._rotation.look,
                    name=self.settings.control.name,
                ),
                configs={config.name: config for config in self.configs},
                read_needs_token=self.settings.control.read_needs_token,
                look_for_requests=self._look_for_requests,
                next_polls=self._next_polls,
                role=lambda: "standby" if self._term is None else "leader",
            )
            self._http = Site(self.settings, parts)
            self._http.start()
            self._follow_secrets(store, self._transport, self._http)
            if leads:
                self._start_term()
            if not store.is_sqlite:  # a file lock is not lost, and nobody else is there
                self._presence = Presence(
                    store,
                    kind="replica",
                    configs=self.configs,
                    clock=self._clock,
                    stop=self._stop,
                    heartbeats=self._heartbeats,
                    work_version=self.settings.work_version,
                )
                self._presence.start()
                self._start_standby(leads=leads)
        except BaseException:
            self.stop()
            raise
        addresses = Addresses(
            http=self._http.control_url, probes=self._http.probes_url, server=self._transport.server
        )
        _log.info(
            "daemon.started",
            watches=[config.name for config in self.configs],
            http=addresses.http,
            probes=addresses.probes,
        )
        return addresses

    def _follow_secrets(self, store: Database, transport: Transport, site: Site) -> None:
        """Takes up secrets in files that change while this process runs; `docs/control.md` tells which."""
        rotation = self._rotation
        rotation.follow_access(transport, store)
        rotation.follow_secret("WATCHER_CONTROL__TOKEN", self._take_control_token)
        rotation.follow_secret("WATCHER_STATEMENT__KEY", self._statement_key.replace)
        rotation.follow_watches(self._take_watch_secrets)
        if self._platform is not None:
            rotation.follow_platform(self._platform, also=transport.secret.replace)
        rotation.follow_tls(site.tls, site.reload_tls)
        rotation.start(self._stop)

    def _take_watch_secrets(self) -> None:
        configs = self.settings.reload().build_watch_configs()
        self.configs[:] = configs
        if self._term is not None:
            self._term.replace_secrets(configs)

    def _take_control_token(self, token: str) -> None:
        check_control_token(token)
        self._configured_token = token

    def _start_standby(self, *, leads: bool) -> None:
        assert self._leadership is not None
        assert self._transport is not None
        self._heartbeats.expect("standby", within_s=max(SCHEDULER_LIMIT_S, self.settings.drain_timeout_s * 2))
        self._standby = Standby(
            self._leadership,
            begin=self._lead,
            end=self._step_down,
            idle=ServerInquiry(self._transport, self._access).begin,
            ask_every_s=self.settings.leader.lease_s / 4,
            stop=self._stop,
            beat=lambda: self._heartbeats.beat("standby"),
            clock=self._clock,
        )
        self._standby.start(leads=leads)

    def _begin_term(self) -> Term:
        assert self._leadership is not None
        assert self._transport is not None
        self._term = Term(
            self.settings,
            self.configs,
            store=self._store_database(),
            leadership=self._leadership,
            transport=self._transport,
            metrics=self._metrics,
            heartbeats=self._heartbeats,
            queue=self._queue,
            statement_key=self._statement_key,
            clock=self._clock,
            rng=self._rng,
            changing=self._changing,
            on_failure=self._rotation.wake,
        )
        return self._term

    def _start_term(self) -> None:
        assert self._http is not None
        tls = self._http.tls
        Control(
            url=self._http.control_url,
            token=self._control_token,
            cert_file=None if tls is None else str(tls[0].resolve()),
        ).write(self.settings.data_dir)
        self._require_term().start()

    def _lead(self) -> None:
        self._begin_term()
        self._start_term()

    def _step_down(self) -> None:
        self._end_term(left_s=lambda: self.settings.drain_timeout_s)

    def _end_term(self, *, left_s: Callable[[], float]) -> bool:
        term, self._term = self._term, None
        if term is None:
            return True
        drained = term.end(left_s=left_s)
        if self._http is not None:
            Control.remove(self.settings.data_dir)
        return drained

    def poll(self, name: str) -> PollReport:
        """One cycle of one watch, attached to its dataset first if need be.

        Raises:
            RefusedChangeError: the watch is paused.
            WatcherError: see `Poller.run_cycle`.
        """
        return self._require_term().duties.poll_by_hand(name)

    def reconcile(self, name: str) -> ReconcileReport:
        """A full comparison of one watch's datasource, ledger and dataset.

        Raises:
            WatcherError: see `Reconciler.run`.
        """
        return self._require_term().duties.reconcile(name)

    def open_watch(self, name: str) -> tuple[WatchConfig, int, Database, Transport]:
        """A watch with its id in the store, and what a command needs to work on it in the foreground."""
        assert self._transport is not None
        config, watch_id = self._require_term().duties.open_watch(name)
        return config, watch_id, self._store_database(), self._transport

    def _require_term(self) -> Term:
        if self._term is None:
            raise ConfigError("this process does not lead; another replica polls")
        return self._term

    @property
    def _scheduler(self) -> Scheduler | None:
        return None if self._term is None else self._term.scheduler

    def _look_for_requests(self) -> None:
        if self._term is not None:
            self._term.look_for_requests()

    def _next_polls(self) -> dict[str, datetime]:
        scheduler = self._scheduler
        return {} if scheduler is None else scheduler.next_polls()

    @property
    def must_restart(self) -> bool:
        """Whether another file lies in the place of the store: what this daemon remembers belongs to the old one."""
        return self._store is not None and self._store.replaced.is_set()

    def run_ready(self) -> int:
        """Runs in the foreground whatever is ready, then delivers; returns the number of attempts at both."""
        return self._require_term().run_ready()

    def stop(self) -> bool:
        """Drains and closes everything; harmless where nothing was started.

        Returns:
            False if something was still under way at the end of `WATCHER_DRAIN_TIMEOUT_S`; it goes on at the next
            start.
        """
        begun_s = self._clock.monotonic_s()
        self._stop.set()
        self._rotation.wake()

        def left_s() -> float:
            return max(0.0, self.settings.drain_timeout_s - (self._clock.monotonic_s() - begun_s))

        if self._standby is not None:
            self._standby.join(timeout_s=left_s())
        if self._presence is not None:
            self._presence.join(timeout_s=2.0)
        drained = self._end_term(left_s=left_s)
        if self._http is not None:
            self._http.stop(timeout_s=5.0)
        if self._transport is not None:
            self._transport.close()
        if self._platform is not None:
            self._platform.stop(timeout_s=max(5.0, left_s()))
        if self._leadership is not None:
            release_in_time(self._leadership)
        open_tracing(self.settings.traces.endpoint).close()
        if self._store is not None:
            self._store.close()
        return drained

    def _store_database(self) -> Database:
        """The store without the fence: what workers write under their leases, and what people change."""
        assert self._store is not None
        return self._store

    def _observe(self, seen: RequestSeen) -> None:
        self._metrics.observe_request(**asdict(seen))
        self._access.observe(endpoint=seen.endpoint, code=seen.code)
        if seen.code == "401":
            self._rotation.check()
