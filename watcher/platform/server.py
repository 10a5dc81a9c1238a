"""Runs a platform: alone, or embedded in a daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from watcher.database.schema import check_schema, upgrade_schema
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import ConfigError
from watcher.logs import get_logger
from watcher.platform import jobs
from watcher.platform.app import build_app, build_platform
from watcher.platform.cleaning import Cleaner
from watcher.platform.context import Platform
from watcher.platform.rekeying import encrypt_anew, take_keys
from watcher.platform.secrets import KEY_FILE, Keys, load_keys, new_id, read_configured_keys
from watcher.platform.settings import FIRST_USER, PlatformConfig
from watcher.platform.store import users as user_store
from watcher.platform.store.tables import SCHEMA
from watcher.platform.worker import JobWorker
from watcher.serving import ThreadedServer

_log = get_logger(__name__)


class PlatformServer:
    """A platform with its own threads; `start` and `stop` once each."""

    def __init__(
        self,
        config: PlatformConfig,
        *,
        clock: Clock | None = None,
        migrate: bool = True,
        work: bool = True,
        wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    ) -> None:
        """Opens nothing yet.

        Args:
            config: the settings.
            clock: reads the time.
            migrate: brings the schema up at the start; otherwise another schema is refused.
            work: carries out jobs and cleans up as well.
            wrap: put round the application, such as by traces.
        """
        self.config = config
        self._clock = clock or SystemClock()
        self._migrate = migrate
        self._work = work
        self._wrap = wrap
        self._platform: Platform | None = None
        self._workers: list[Cleaner | JobWorker] = []
        self._app: ASGIApp | None = None
        self._http = ThreadedServer(
            self._answer,
            host=config.host,
            port=config.port,
            name="platform",
            setting="WATCHER_PLATFORM__PORT (or --port of `watcher platform`)",
        )

    @property
    def url(self) -> str:
        """Where it answers, with the real port once started."""
        return self._http.url

    @property
    def key_file(self) -> Path | None:
        """Where the keys lie, if none are configured."""
        return None if self.config.key is not None else self.config.data_dir / KEY_FILE

    @property
    def platform(self) -> Platform:
        """The parts; only after `start`."""
        if self._platform is None:
            raise LookupError("the platform has not been started")
        return self._platform

    def start(self) -> None:
        """Binds, checks the schema, and returns when the server answers.

        Raises:
            ConfigError: the port is taken, or the folder cannot be used.
            StoreError: the database cannot be used as it is.
        """
        self._http.bind()
        try:
            self._prepare()
            self._app = self._wrap(build_app(self.config, clock=self._clock, platform=self._platform))
            self._http.start()
        except BaseException:
            self.stop(5.0)
            raise
        _log.info("platform.started", url=self.url)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, which is built only after the address is known to be free."""
        if self._app is None:
            raise LookupError("the platform has not been started")
        await self._app(scope, receive, send)

    def _prepare(self) -> None:
        try:
            self._platform = build_platform(self.config, clock=self._clock)
            self._platform.listings.clear_abandoned()
        except OSError as error:
            raise ConfigError(
                f"the platform cannot use {self.config.data_dir}: {error.strerror or error}"
            ) from error
        database = self._platform.database
        if self._migrate:
            upgrade_schema(database, SCHEMA)
        else:
            check_schema(database, SCHEMA)
        if len(self._platform.keys.ids) > 1:  # cryptography is loaded only where a key has changed
            encrypt_anew(self._platform)
        ensure_first_user(self._platform)
        if self._work:
            self._workers = [
                Cleaner(self._platform),
                *(JobWorker(self._platform, kind) for kind in jobs.KINDS),
            ]
            for worker in self._workers:
                worker.start()

    def replace_token(self, token: str) -> None:
        """Gives the first user another token; the old one ends within five seconds.

        Raises:
            ConfigError: it is too short, or another user's; the old one stays.
        """
        config = replace(self.config, token=token)
        change_first_token(self.platform, token=token)
        self.config = config

    def replace_keys(self, text: str) -> None:
        """Takes those keys, a line each and the newest first, in the place of the present ones.

        Raises:
            ConfigError: one is damaged, or one is missing that credentials hang on; the present ones stay.
        """
        self._take_keys(read_configured_keys(text))
        self.config = replace(self.config, key=text)

    def reload_key_file(self) -> None:
        """As `replace_keys`, with what the key file holds by now."""
        self._take_keys(load_keys(self.config.data_dir))

    def _take_keys(self, keys: Keys) -> None:
        take_keys(self.platform, keys)
        change_first_token(self.platform, token=self.config.token)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Lets requests under way end, gives a running job back, and closes everything."""
        limit = time.monotonic() + timeout_s
        self._http.ask_to_stop(within_s=timeout_s)
        for worker in self._workers:
            worker.ask_to_stop()
        for worker in self._workers:
            worker.stop(max(0.1, limit - time.monotonic()))
        self._workers = []
        self._http.stop(timeout_s=max(0.1, limit - time.monotonic()))
        if self._platform is not None:
            self._platform.listings.close()
            self._platform.database.close()
            self._platform = None
            _log.info("platform.stopped")


def ensure_first_user(platform: Platform) -> None:
    """Makes the user of the configured token, or gives it that token."""
    change_first_token(platform, token=platform.config.token)


def change_first_token(platform: Platform, *, token: str) -> None:
    """Gives the first user that token; makes the user if there is none.

    Raises:
        ConfigError: it is another user's.
    """
    hashed = platform.keys.hash_token_by_each(token)
    newest, hashes = hashed[0], [each.hash for each in hashed]
    with platform.database.write() as session:
        holder = user_store.load_user_by_hashes(session, token_hashes=hashes)
        owner = user_store.load_user_by_name(session, name=FIRST_USER)
        if holder is not None and (owner is None or holder.id != owner.id):
            raise ConfigError(
                f"the configured token belongs to the user {holder.name!r}: choose another one for the first user"
            )
        now_s = platform.clock.now_s()
        if owner is None:
            user_store.insert_user(
                session,
                user_id=new_id(now_s),
                name=FIRST_USER,
                token_hash=newest.hash,
                token_key=newest.key_id,
                now_ms=int(now_s * 1000),
            )
        elif holder is None:
            user_store.update_token(
                session,
                user_id=owner.id,
                token_hash=newest.hash,
                token_key=newest.key_id,
                sessions_from_s=int(now_s) + 1,
            )
        elif holder.token_key != newest.key_id:
            user_store.update_token_hash(
                session,
                user_id=owner.id,
                token_hash=newest.hash,
                token_key=newest.key_id,
                instead_of=hashes,
            )
