"""The daemon's HTTP servers: one for everything, or control and status page on an address of their own."""

from __future__ import annotations

import contextlib
from pathlib import Path

from watcher.ops.app import build_app
from watcher.ops.parts import OpsParts
from watcher.serving import ThreadedServer
from watcher.settings.root import Settings


class Site:
    """Metrics and health at `WATCHER_HTTP__...`; control and status page there too, or at `WATCHER_CONTROL__...`."""

    def __init__(self, settings: Settings, parts: OpsParts) -> None:
        """Reads the certificate, if there is one.

        Raises:
            ConfigError: it cannot be used.
        """
        http, control = settings.http, settings.control
        self.tls = read_tls(settings)
        apart = control.port is not None
        self._probes = ThreadedServer(
            build_app(parts, control=not apart),
            host=http.host,
            port=http.port,
            name="metrics and health" if apart else "status page",
            setting="WATCHER_HTTP__PORT",
            tls=self.tls,
        )
        self._control = self._probes
        if control.port is not None:
            self._control = ThreadedServer(
                build_app(parts, probes=False),
                host=control.host or http.host,
                port=control.port,
                name="control API and status page",
                setting="WATCHER_CONTROL__PORT",
                tls=self.tls,
            )

    @property
    def probes_url(self) -> str:
        """Where metrics and health are."""
        return self._probes.url

    @property
    def control_url(self) -> str:
        """Where control API and status page are."""
        return self._control.url

    def start(self) -> None:
        """Binds and serves.

        Raises:
            ConfigError: an address is taken; the setting is named.
        """
        self._probes.start()
        if self._control is not self._probes:
            self._control.start()

    def reload_tls(self, _path: str) -> None:
        """Takes up a renewed certificate.

        Raises:
            ConfigError: it cannot be used, or not yet; the old one stays.
        """
        for server in {self._probes, self._control}:
            server.reload_tls()

    def stop(self, *, timeout_s: float) -> None:
        """Stops both; harmless if they were not started."""
        with contextlib.ExitStack() as stack:
            for server in {self._probes, self._control}:
                stack.callback(server.stop, timeout_s=timeout_s)


def read_tls(settings: Settings) -> tuple[Path, Path] | None:
    """The files of certificate and key; None for plain HTTP."""
    cert, key = settings.http.tls_cert_file, settings.http.tls_key_file
    return None if cert is None or key is None else (cert, key)
