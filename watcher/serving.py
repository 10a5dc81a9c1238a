"""An HTTP server in a thread: uvicorn, bound before anything else happens, stopped within a limit."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from watcher.domain.errors import ConfigError, DeadlineExceededError
from watcher.logs import get_logger

_log = get_logger("serving")

_TROUBLE_WITH_PORT = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EPERM})
_START_LIMIT_S = 30.0
_POLL_S = 0.01
_MAX_HEADER_BYTES = 64 * 1024
# Above the time in which an application gives up a body that does not come, so that its answer tells why.
_CLIENT_LIMIT_S = 75.0
# A slow client shows seldom that it takes its answer: the buffers of the system hold some megabytes.
_TAKING_FACTOR = 8
_MOST_CONNECTIONS = 2000


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
        client_limit_s: float = _CLIENT_LIMIT_S,
        most_connections: int | None = None,
    ) -> None:
        """Keeps the values.

        Args:
            app: what is served.
            host: address to listen on.
            port: 0 takes a free one; see `port` afterwards.
            name: of the server, for messages.
            setting: name of the setting that a person changes when the port is taken.
            tls: files of the certificate with its chain, and of its key; None for plain HTTP.
            client_limit_s: a client that does not go on sending is waited for so long, one that does not take its
                answer for eight times that.
            most_connections: open at once; more are closed. None: 2000, but no more than half of the files that this
                process may open.
        """
        self._app = app
        self._host = host
        self._name = name
        self._setting = setting
        self._tls = tls
        self._tls_context = None if tls is None else load_tls(*tls)
        self._protocol = partial(
            _BoundedConnection,
            limit_s=client_limit_s,
            most=_find_most_connections() if most_connections is None else most_connections,
            refusals=_Refusals(name),
        )
        self._server: _Server | None = None
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
            http=self._protocol,  # type: ignore[arg-type] # it is only called
            lifespan="off",
            ws="none",
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=10,
            ssl_context_factory=None if context is None else lambda _config, _default: context,
        )
        server = self._server = _Server(config)
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
            self._server.ask_to_exit()

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


class _Server(uvicorn.Server):
    """Wakes once a second, as the second begins, instead of ten times: only the date of answers needs it.

    Clients read the clock from that date, and 100 watches that rest should cost next to nothing.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    def ask_to_exit(self) -> None:
        """Ends the loop at once; from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._woken.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()  # before the look at `should_exit`
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0 - time.time() % 1.0):
                    await self._woken.wait()


class _Refusals:
    """Tells of connections that were closed for their number: at most once a minute."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._quiet_until_s = 0.0

    def tell(self, *, now_s: float, most: int) -> None:
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + 60.0
            _log.warning("connection.refused", server=self._name, open=most)


class _BoundedConnection(H11Protocol):
    """A connection of which no more than so many are open, and whose client is not waited for without end.

    uvicorn itself waits for ever for the first request, for the rest of a request, and for a client that takes its
    answer: each such connection would keep a file of the process, until none is left for the store.
    """

    def __init__(self, *args: Any, limit_s: float, most: int, refusals: _Refusals, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._limit_s = limit_s
        self._most = most
        self._refusals = refusals
        self._moved_s = 0.0
        self._unsent_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        if len(self.connections) > self._most:
            self._refusals.tell(now_s=self.loop.time(), most=self._most)
            transport.abort()
            return
        self._moved_s = self.loop.time()
        self._timer = self.loop.call_later(self._limit_s, self._look)

    def data_received(self, data: bytes) -> None:
        self._moved_s = self.loop.time()
        super().data_received(data)

    def resume_writing(self) -> None:
        self._moved_s = self.loop.time()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._moved_s = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Closes the connection if its client has not moved for the limit while it was its turn."""
        now_s = self.loop.time()
        limit_s = self._find_limit_s()
        if limit_s is None:
            self._moved_s, limit_s = now_s, self._limit_s
        if now_s - self._moved_s >= limit_s:
            self.transport.abort()
            return
        self._timer = self.loop.call_later(max(0.01, self._moved_s + limit_s - now_s), self._look)

    def _find_limit_s(self) -> float | None:
        """How long the client may take for what it is to do now; None if it is not its turn."""
        before, self._unsent_bytes = self._unsent_bytes, self.transport.get_write_buffer_size()
        if self._unsent_bytes:
            return _TAKING_FACTOR * self._limit_s if self._unsent_bytes == before else None
        is_sending = self.conn.their_state in {h11.IDLE, h11.SEND_BODY} and not self.flow.read_paused
        # Between two requests uvicorn's own limit counts.
        return self._limit_s if is_sending and self.timeout_keep_alive_task is None else None


def _find_most_connections() -> int:
    """What leaves the store and the requests of this process as many files as the connections may take."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(_MOST_CONNECTIONS, files // 2))
    )


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
