"""One HTTP exchange: pooled connections on `requests`, whole-answer deadlines, and queries nobody else gets to see.

`requests` and urllib3 are handed addresses without their query: whatever they log, or put into an error, holds
neither a token nor a signature. The real request target travels beside them, down to the line that writes it to
the socket, byte for byte as it was given; so the signature of a signed URL stays what the signer made it.
"""

from __future__ import annotations

import http.client
import io
import os
import re
import socket
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError

from watcher.domain.clock import Clock
from watcher.domain.errors import (
    ConfigError,
    NotSentError,
    TransportError,
    UnknownOutcomeError,
    WatcherError,
)
from watcher.domain.redaction import redact
from watcher.lightly.addresses import split_address
from watcher.lightly.throttle import RateLimit
from watcher.lightly.trust import Trust

_BUFFER_BYTES = 1 << 16


class _Call(threading.local):
    """What the call under way in this thread tells its connection, and what it hears from it."""

    target: str = ""
    address: str = ""
    deadline_s: float = float("inf")
    clock: Clock | None = None
    trust: Trust = Trust(usual=True)
    sent: bool = False


_CALL = _Call()


class _DeadlineReader(io.RawIOBase):
    """A socket's bytes until a point in time: a peer that trickles is cut there, not granted one more time-out."""

    def __init__(
        self, raw: io.RawIOBase, sock: socket.socket, clock: Clock | None, deadline_s: float
    ) -> None:
        self._raw = raw
        self._sock = sock
        self._clock = clock
        self._deadline_s = deadline_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self._clock is not None:
            left_s = self._deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise TimeoutError("the answer did not end in time")
            idle_s = self._sock.gettimeout()
            if idle_s is None or idle_s > left_s:
                self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        reader = _DeadlineReader(sock.makefile("rb", buffering=0), sock, _CALL.clock, _CALL.deadline_s)
        self.fp = io.BufferedReader(reader, _BUFFER_BYTES)


class _Verbatim:
    """Mixed into a connection: writes the request target of the call as it was given, and tells when bytes left."""

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        target = _CALL.target if url.startswith("/") else _CALL.address
        super().request(method, target or url, *args, **kwargs)  # type: ignore[misc] # of the class it is mixed into

    def connect(self) -> None:
        try:
            super().connect()  # type: ignore[misc] # likewise
        finally:
            _CALL.sent = False

    def send(self, data: Any) -> None:
        if self.sock is None and self.auto_open:  # type: ignore[attr-defined] # likewise
            self.connect()
        _CALL.sent = True
        super().send(data)  # type: ignore[misc] # likewise


class _HTTPConnection(_Verbatim, HTTPConnection):
    response_class = _DeadlineResponse


class _HTTPSConnection(_Verbatim, HTTPSConnection):
    response_class = _DeadlineResponse

    def connect(self) -> None:
        self.ca_cert_data, folder = _CALL.trust.read_besides()
        self.ca_cert_dir = folder or self.ca_cert_dir
        super().connect()


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any
    ) -> None:
        super().init_poolmanager(connections, maxsize, block=block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class Connections:
    """Pooled connections to any number of hosts; safe to share between threads, and after a fork.

    Args:
        trust: whose certificates are believed; see `build_trust`.
        connect_timeout_s: longest wait for a connection, in seconds.
        read_timeout_s: longest silence of the other side, in seconds.
        pool_size: connections kept open to one host.
        clock: where time comes from.

    Proxies are taken from `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, as `requests` does.
    """

    def __init__(
        self,
        *,
        trust: Trust,
        connect_timeout_s: float,
        read_timeout_s: float,
        pool_size: int,
        clock: Clock,
    ) -> None:
        self._trust = trust
        self._timeout_s = (connect_timeout_s, read_timeout_s)
        self._pool_size = pool_size
        self._clock = clock
        self._lock = threading.Lock()
        self._throttle: RateLimit | None = None
        self._proxies: dict[str, dict[str, str]] = {}
        self._adapter = self._build_adapter()
        self._pid = os.getpid()

    def _build_adapter(self) -> _Adapter:
        return _Adapter(pool_connections=16, pool_maxsize=self._pool_size, max_retries=0)

    def close(self) -> None:
        """Closes all idle connections; the object stays usable."""
        self._adapter.close()

    def limit_rate(self, throttle: RateLimit) -> None:
        """Lets every exchange wait for its place first; the wait counts towards the exchange's deadline."""
        self._throttle = throttle

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | BinaryIO | None = None,
        deadline_s: float,
        what: str,
    ) -> requests.Response:
        """Sends one request and reads the head of its answer; follows no redirect, repeats nothing.

        Args:
            method: GET, PUT, ...
            url: absolute; sent as given, save characters that HTTP cannot carry, which are percent-encoded.
            headers: sent besides `Host`; must hold `Content-Length` when there is a body.
            body: read from its present position.
            deadline_s: reading on the clock's monotonic scale at which the last byte must have come.
            what: names the exchange in errors; holds no secret.

        Returns:
            The answer with its body unread; reading it obeys the deadline. Close it.

        Raises:
            NotSentError: no byte of the request was written.
            UnknownOutcomeError: the connection failed afterwards.
            ConfigError: the address is none.
        """
        if self._throttle is not None:
            self._throttle.wait(url)
        request = requests.PreparedRequest()
        request.method = method
        request.url, target, address = split_address(url)
        request.headers = CaseInsensitiveDict(headers)
        request.body = body  # type: ignore[assignment] # streams too
        _CALL.target, _CALL.address = target, address
        _CALL.deadline_s, _CALL.clock, _CALL.trust = deadline_s, self._clock, self._trust
        _CALL.sent = False
        try:
            return self._get_adapter().send(
                request,
                stream=True,
                timeout=self._timeout_s,
                verify=self._trust.usual,
                proxies=self._get_proxies(request.url),
            )
        except WatcherError:  # from reading the body
            raise
        except (requests.RequestException, HTTPError, OSError) as error:
            reason = describe_failure(error)
        except ValueError as error:  # a malformed host or port
            raise ConfigError(f"{what}: not a usable address: {redact(str(error))[:200]}") from None
        finally:
            sent = _CALL.sent
            _CALL.target = _CALL.address = ""
        # Raised out here, the original with its fragments of the request hangs on nothing.
        if sent:
            raise UnknownOutcomeError(f"{what}: the connection failed before the answer came: {reason}")
        raise NotSentError(f"{what}: could not connect: {reason}")

    def _get_adapter(self) -> _Adapter:
        if self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    # A child must not write into the sockets of its parent.
                    self._adapter = self._build_adapter()
                    self._pid = os.getpid()
        return self._adapter

    def _get_proxies(self, address: str) -> dict[str, str]:
        origin = address[: address.find("/", 8)]
        found = self._proxies.get(origin)
        if found is None:
            found = self._proxies[origin] = dict(get_environ_proxies(address))
            if len(self._proxies) > 1000:
                self._proxies = {origin: found}
        return found


def read_chunk(response: requests.Response, n_bytes: int, *, what: str) -> bytes:
    """Reads up to `n_bytes` of an answer, decoded; fewer only at its end.

    Raises:
        TransportError: the connection failed, the time ran out, or fewer bytes came than the head announced.
    """
    try:
        chunk: bytes = response.raw.read(n_bytes, decode_content=True)
    except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
        reason = describe_failure(error)
    else:
        return chunk
    raise TransportError(f"{what}: the answer broke off: {reason}")


def _describe_silence(found: re.Match[str]) -> str:
    return f"nothing came for {float(found[1]):.3g} s"


def describe_failure(error: BaseException) -> str:
    """The innermost reason of a failed exchange in a few words, without addresses' queries."""
    seen = 0
    while seen < 8:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None:
            break
        error = inner
        seen += 1
    # What the libraries say of their own objects, and of a silence.
    text = re.sub(
        r"^.*?(?:object at 0x[0-9a-f]+>|(?:Connection|Pool)\(host=[^)]*\)): ", "", str(error), flags=re.DOTALL
    )
    text = re.sub(r"^Read timed out\. \(read timeout=([0-9.]+)\)$", _describe_silence, text)
    return redact(text or type(error).__name__)[:300]
