"""The limit of requests to a server, over the store if that is one for many processes."""

from __future__ import annotations

import threading

from watcher.database import Database
from watcher.domain.clock import Clock
from watcher.lightly.throttle import SHARED_BURST_S, RateLimit, SharedThrottle, Throttle, read_server_name
from watcher.lightly.transport import Transport
from watcher.store.request_rates import reserve_places


def limit_rate(
    transport: Transport,
    database: Database | None,
    requests_per_s: float,
    *,
    clock: Clock,
    stop: threading.Event,
) -> None:
    """From now on the requests of `transport` to its server keep to the rate; see `build_rate_limit`."""
    transport.connections.limit_rate(
        build_rate_limit(
            database, server=transport.server, requests_per_s=requests_per_s, clock=clock, stop=stop
        )
    )


def build_rate_limit(
    database: Database | None, *, server: str, requests_per_s: float, clock: Clock, stop: threading.Event
) -> RateLimit:
    """The limit of requests to a server: of all processes on a Postgres store together, else of this process."""
    if database is None or database.is_sqlite:
        return Throttle(server=server, requests_per_s=requests_per_s, clock=clock, stop=stop)
    gap_s = 1.0 / requests_per_s

    def reserve(n: int) -> float:
        with database.write() as session:
            delay_us = reserve_places(
                session,
                server=read_server_name(server),
                n=n,
                gap_us=round(gap_s * 1e6),
                burst_us=round(max(0.0, SHARED_BURST_S - gap_s) * 1e6),
            )
        return delay_us / 1e6

    return SharedThrottle(
        server=server, requests_per_s=requests_per_s, reserve=reserve, clock=clock, stop=stop
    )
