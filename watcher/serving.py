"""An HTTP server in a thread: uvicorn, bound before anything else happens, stopped within a limit."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette

from watcher.domain.errors import ConfigError, DeadlineExceededError

_START_LIMIT_S = 30.0
_POLL_S = 0.01


class ThreadedServer:
    """Serves one application.

    The socket is bound in `start`, so a port that is taken is an error of the caller, not of a thread.
    """

    def __init__(self, app: Starlette, *, host: str, port: int, name: str, setting: str) -> None:
        """Keeps the values.

        Args:
            app: what is served.
            host: address to listen on.
            port: 0 takes a free one; see `port` afterwards.
            name: of the server, for messages.
            setting: name of the setting that a person changes when the port is taken.
        """
        self._app = app
        self._host = host
        self._wanted_port = port
        self._name = name
        self._setting = setting
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.port = port

    def start(self) -> None:
        """Binds, and returns when the server answers.

        Raises:
            ConfigError: the address cannot be bound.
            DeadlineExceededError: it did not start within 30 s.
        """
        self._socket = _bind(self._host, self._wanted_port, name=self._name, setting=self._setting)
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
        )
        server = uvicorn.Server(config)
        self._server = server
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [self._socket]}, name=self._name, daemon=True
        )
        self._thread.start()
        ends_s = time.monotonic() + _START_LIMIT_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > ends_s:
                raise DeadlineExceededError(f"the {self._name} did not start; the log tells why")
            time.sleep(_POLL_S)

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        host = "127.0.0.1" if self._host in {"0.0.0.0", ""} else "[::1]" if self._host == "::" else self._host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{self.port}"

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Answers what is under way and ends; harmless if it was not started."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=timeout_s)
            if self._thread.is_alive():
                self._server.force_exit = True
                self._thread.join(timeout=1.0)
        if self._socket is not None:
            self._socket.close()


def _bind(host: str, port: int, *, name: str, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(1024)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"the {name} cannot listen on {host}:{port} ({error.strerror}): set {setting} to a free port, or to 0"
        ) from error
    return bound
