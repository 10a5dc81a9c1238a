"""What the daemon's HTTP handlers share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import msgspec
from prometheus_client import CollectorRegistry
from starlette.responses import Response

from watcher.database.engine import Database
from watcher.domain.clock import Clock
from watcher.domain.models import WatchConfig
from watcher.lightly.transport import Transport
from watcher.ops.health import AccessWatch, Heartbeats
from watcher.ops.tokens import ControlTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class OpsParts:
    """What the pages need.

    Attributes:
        tokens: whose token is asked for by everything that changes something.
        read_needs_token: whether reading wants one too; metrics and health never do.
        look_for_requests: takes up at once what a person asked for, where this process leads.
        next_polls: when each watch is polled next.
        configs: the watches as configured, by name; what a plan is made from.
        role: `leader` while this process may poll, else `standby`; `worker` where it never does.
    """

    database: Database
    transport: Transport
    registry: CollectorRegistry
    heartbeats: Heartbeats
    access: AccessWatch
    clock: Clock
    tokens: ControlTokens
    look_for_requests: Callable[[], None]
    next_polls: Callable[[], Mapping[str, datetime]]
    role: Callable[[], str] = lambda: "leader"
    read_needs_token: bool = False
    configs: Mapping[str, WatchConfig] = field(default_factory=dict)


def build_json(value: object, *, status: int = 200) -> Response:
    """A JSON answer that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return Response(msgspec.json.encode(value), status, media_type="application/json", headers=headers)
