"""An HTTP server in a thread: uvicorn, bound before anything else happens, stopped within a limit."""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from watcher.domain.errors import ConfigError, DeadlineExceededError

_TROUBLE_WITH_PORT = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EPERM})
_START_LIMIT_S = 30.0
_POLL_S = 0.01
_MAX_HEADER_BYTES = 64 * 1024


class ThreadedServer:
    """Serves one application.

    Binding comes first and by itself, so a port that is taken is an error of the caller, not of a thread, and the
    address is known before the application is ready.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        name: str,
        setting: str,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """Keeps the values.

        Args:
            app: what is served.
            host: address to listen on.
            port: 0 takes a free one; see `port` afterwards.
            name: of the server, for messages.
            setting: name of the setting that a person changes when the port is taken.
            tls: files of the certificate with its chain, and of its key; None for plain HTTP.
        """
        self._app = app
        self._host = host
        self._name = name
        self._setting = setting
        self._tls = tls
        self._tls_context = None if tls is None else load_tls(*tls)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self.port = port

    def bind(self) -> None:
        """Takes the address; connections wait until `start`.

        Raises:
            ConfigError: the address cannot be bound.
        """
        self._socket = _bind(self._host, self.port, name=self._name, setting=self._setting)
        self.port = self._socket.getsockname()[1]

    def start(self) -> None:
        """Starts the thread, and returns when the server answers; binds first if nobody did.

        Raises:
            ConfigError: the address cannot be bound.
            DeadlineExceededError: it did not start within 30 s.
        """
        if self._socket is None:
            self.bind()
        context = self._tls_context
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            server_header=False,
            interface="asgi3",  # a bound method would be taken for the older kind
            lifespan="off",
            ws="none",
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
            ssl_context_factory=None if context is None else lambda _config, _default: context,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=server.run, kwargs={"sockets": [self._socket]}, name=self._name, daemon=True
        )
        self._thread.start()
        ends_s = time.monotonic() + _START_LIMIT_S
        while not server.started:
            if not self._thread.is_alive() or time.monotonic() > ends_s:
                raise DeadlineExceededError(f"the {self._name} did not start; the log tells why")
            self._thread.join(_POLL_S)

    def reload_tls(self) -> None:
        """Takes up a renewed certificate for new connections.

        Raises:
            ConfigError: it cannot be used; the old one stays.
        """
        if self._tls is not None and self._tls_context is not None:
            load_tls(*self._tls)  # a pair that does not fit would leave the context half changed
            self._tls_context.load_cert_chain(*self._tls)

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        return build_local_url("http" if self._tls is None else "https", self._host, self.port)

    def ask_to_stop(self, *, within_s: float) -> None:
        """Takes no more requests, and gives those under way the time; does not wait."""
        if self._server is not None:
            self._server.config.timeout_graceful_shutdown = max(1, int(within_s))
            self._server.should_exit = True

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """Answers what is under way and ends; harmless if it was not started, or twice."""
        self.ask_to_stop(within_s=timeout_s)
        if self._thread is not None and self._server is not None:
            self._thread.join(timeout=timeout_s)
            if self._thread.is_alive():
                self._server.force_exit = True
                self._thread.join(timeout=5.0)
        self._thread = self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def build_local_url(scheme: str, host: str, port: int) -> str:
    """Where a client on this machine reaches what listens on `host`."""
    anywhere = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
    host = anywhere.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def watch_refusals(app: ASGIApp, on_refused: Callable[[], None]) -> ASGIApp:
    """The application, with a call after each answer 401; it must be quick."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def watch(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.start" and message["status"] == 401:
                on_refused()

        await app(scope, receive, watch)

    return answer


def load_tls(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """What a server needs to speak TLS with these files.

    Raises:
        ConfigError: they are missing, no PEM, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert_file, key_file, password=_refuse_passphrase)
    except (OSError, ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"the certificate {cert_file} with the key {key_file} cannot be used ({reason}): both are PEM files, and "
            "the key has no passphrase"
        ) from None
    return context


def _refuse_passphrase() -> str:
    """Instead of asking on the terminal."""
    raise ValueError("the key has a passphrase")


def _bind(host: str, port: int, *, name: str, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol told, asyncio sends small answers at once; else each waits 40 ms for an acknowledgement.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(2048)
    except OSError as error:
        bound.close()
        way_out = f"set {setting.replace('PORT', 'HOST', 1)} to an address of this machine"
        if error.errno in _TROUBLE_WITH_PORT and not isinstance(error, socket.gaierror):
            way_out = f"set {setting} to a free port, or to 0"
        raise ConfigError(
            f"the {name} cannot listen on {host}:{port} ({error.strerror}): {way_out}"
        ) from error
    return bound
