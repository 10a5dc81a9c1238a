"""Secrets in files, taken up while the process runs: looked at each minute, and at once when a server says 401."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

from watcher.domain.errors import WatcherError
from watcher.logs import get_logger
from watcher.settings import Settings
from watcher.settings_variables import read_secret

_log = get_logger("rotation")
_CHECK_S = 60.0


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

    def follow_secret(self, variable: str, take_up: Callable[[str], None]) -> None:
        """Calls `take_up` with each new secret; nothing happens if the variable was not set by a file."""
        path = self._files.get(variable)
        if path is not None:
            self._followed.append(_Followed(variable, path, take_up, _look(path)))

    def follow_file(self, variable: str, path: str, take_up: Callable[[str], None]) -> None:
        """Calls `take_up` with the path whenever the file changed."""
        self._followed.append(_Followed(variable, path, take_up, _look(path)))

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
        """Checks each minute in a thread of its own, until `stop` is set."""
        if self._followed:
            threading.Thread(target=self._run, args=(stop,), name="rotation", daemon=True).start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(_CHECK_S):
            self.check()


def _look(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows the links by which Kubernetes replaces secrets
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
