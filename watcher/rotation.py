"""Secrets in files, taken up while the process runs: looked at each minute, and at once when one is refused."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from watcher.database.engine import Database
from watcher.domain.errors import WatcherError
from watcher.lightly.transport import Transport
from watcher.logs import get_logger
from watcher.settings.root import Settings
from watcher.settings.variables import read_secret

if TYPE_CHECKING:
    from watcher.platform.server import PlatformServer

_log = get_logger("rotation")
_CHECK_S = 60.0
_LEAST_S = 1.0
_WATCHES = "WATCHER_WATCHES__"


@dataclass(slots=True)
class _Followed:
    variable: str
    path: str
    take_up: Callable[[str], None]
    state: tuple[int, ...]


class Rotation:
    """Follows files. Only their state is asked for each time; they are read again when it differs. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._files = settings.secret_files
        self._followed: list[_Followed] = []
        self._lock = threading.Lock()
        self._refused = threading.Event()
        self._looked_s = 0.0

    def follow_secret(self, variable: str, take_up: Callable[[str], None]) -> None:
        """Calls `take_up` with each new secret; nothing happens if the variable was not set by a file."""
        path = self._files.get(variable)
        if path is not None:
            self._followed.append(_Followed(variable, path, take_up, _look(path)))

    def follow_file(self, variable: str, path: str, take_up: Callable[[str], None]) -> None:
        """Calls `take_up` with the path whenever the file changed."""
        self._followed.append(_Followed(variable, path, take_up, _look(path)))

    def follow_watches(self, take_up: Callable[[], None]) -> None:
        """Calls `take_up` whenever a secret of a watch changed: of a sink or an embedder."""
        for variable in self._files:
            if variable.startswith(_WATCHES):
                self.follow_secret(variable, lambda _secret: take_up())

    def follow_access(self, transport: Transport, store: Database) -> None:
        """The token for the server, and user and password of the store."""
        self.follow_secret("LIGHTLY_TOKEN", transport.secret.replace)
        self.follow_secret("WATCHER_STORE__URL", store.credentials.replace)

    def follow_platform(
        self,
        platform: PlatformServer,
        *,
        with_token: bool = True,
        also: Callable[[str], None] = lambda _token: None,
    ) -> None:
        """Keys, token and identity of a platform that was started, and user and password of its database.

        Args:
            platform: takes them.
            with_token: whether its token is that of the settings.
            also: told the token after the platform took it.
        """
        parts = platform.platform

        def take_token(token: str) -> None:
            platform.replace_token(token)
            also(token)

        if with_token:
            self.follow_secret("WATCHER_PLATFORM__TOKEN", take_token)
        self.follow_secret("WATCHER_PLATFORM__KEY", platform.replace_keys)
        if platform.key_file is not None:
            self.follow_file("platform.key", str(platform.key_file), lambda _path: platform.reload_key_file())
        self.follow_secret("WATCHER_PLATFORM__DATABASE_URL", parts.database.credentials.replace)
        self.follow_secret(
            "WATCHER_PLATFORM__ROLE_ACCESS_KEY_ID", lambda key_id: parts.roles.replace_identity(key_id=key_id)
        )
        self.follow_secret(
            "WATCHER_PLATFORM__ROLE_SECRET_ACCESS_KEY",
            lambda secret: parts.roles.replace_identity(secret=secret),
        )

    def follow_tls(self, tls: tuple[Path, Path] | None, take_up: Callable[[str], None]) -> None:
        """Certificate and key, if there are any."""
        for name, path in zip(("CERT", "KEY"), tls or (), strict=False):
            self.follow_file(f"WATCHER_HTTP__TLS_{name}_FILE", str(path), take_up)

    def look(self) -> None:
        """Checks, but not more than once a second: for where strangers may be refused as often as they like."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LEAST_S:
            self._looked_s = now_s
            self.check()

    def wake(self) -> None:
        """Checks soon, in the thread: for where nothing may be waited for."""
        self._refused.set()

    def check(self) -> None:
        """Takes up what changed. What cannot be used is logged, and the old one stays."""
        with self._lock:
            for each in self._followed:
                state = _look(each.path)
                if state == each.state or not state:  # gone for a moment, while it is replaced
                    continue
                try:
                    is_secret = self._files.get(each.variable) == each.path
                    name = f"{each.variable}_FILE"
                    each.take_up(read_secret(name, each.path) if is_secret else each.path)
                except (WatcherError, OSError) as error:
                    # The state stays the old one, so that a file that is half written is tried again.
                    _log.warning("secret.unusable", variable=each.variable, reason=str(error))
                else:
                    each.state = state
                    _log.info("secret.changed", variable=each.variable)

    def start(self, stop: threading.Event) -> None:
        """Checks each minute, and when woken, in a thread of its own, until `stop` is set."""
        if self._followed:
            threading.Thread(target=self._run, args=(stop,), name="rotation", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            self._refused.wait(_CHECK_S)
            self._refused.clear()
            if not stop.is_set():
                self.check()
            stop.wait(_LEAST_S)


def _look(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows the links by which Kubernetes replaces secrets
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
