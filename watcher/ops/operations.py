"""The operations of the control API in one table: routes, checks and the served description are drawn from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from watcher.ops.life import Life
from watcher.ops.overview import Overview, WatchView
from watcher.planning import Plan
from watcher.store.control import AuditEntry
from watcher.store.reconciles import ReconcileReport

LATEST_S = 100_000_000_000
LARGEST_ID = 2**53
_NO_NUL = r"^[^\x00]*$"
_PLAIN = r"^[^\x00-\x1f\x7f]*$"


class ChangeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a change; it may be left out.

    Attributes:
        actor: who wants it, for the audit log; stands behind the name of the token.
    """

    actor: Annotated[str, msgspec.Meta(max_length=100, pattern=_PLAIN)] = ""


class RewindRequest(ChangeRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a rewind; `to_s` is unix seconds."""

    to_s: Annotated[int, msgspec.Meta(ge=0, le=LATEST_S)]


class ReplayRequest(ChangeRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a replay.

    Attributes:
        delivery: `<batch>/<sink>` or `<batch>`: makes that alone again.
        file: the whole name of a file: gives that alone another chance.
    """

    delivery: Annotated[str, msgspec.Meta(max_length=300, pattern=_PLAIN)] | None = None
    file: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=_NO_NUL)] | None = None


class DropRequest(ChangeRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of a drop; one of the two.

    Attributes:
        delivery: `<batch>/<sink>` or `<batch>`.
        sink: all dead deliveries to it, be it configured or not.
    """

    delivery: Annotated[str, msgspec.Meta(min_length=1, max_length=300, pattern=_PLAIN)] | None = None
    sink: Annotated[str, msgspec.Meta(min_length=1, max_length=63, pattern=_PLAIN)] | None = None


class ChangeDone(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did.

    Attributes:
        status: in words.
        changed: False if it stood like that already; the audit log has no new line then.
    """

    watch: str
    verb: str
    status: str
    changed: bool


class FailedRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that was given up."""

    watch: str
    batch_id: int
    step: str
    shard: int
    attempts: int
    reason: str | None
    finished_ms: int | None


class FailedSample(msgspec.Struct, frozen=True, kw_only=True):
    """A sample that was set aside, or vanished."""

    watch: str
    file_name: str
    state: str
    reason: str | None
    changed_ms: int


class FailedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that was given up; `delivery` is `<batch>/<sink>`, as `replay` and `drop` take it."""

    watch: str
    delivery: str
    attempts: int
    reason: str | None
    finished_ms: int | None


class Failures(msgspec.Struct, frozen=True, kw_only=True):
    """What was given up, newest first, each list cut at `limit`; `replay` gives it another chance."""

    runs: list[FailedRun]
    deliveries: list[FailedDelivery]
    samples: list[FailedSample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A parameter of the query string, with its JSON schema."""

    name: str
    schema: Mapping[str, Any]
    required: bool = False
    summary: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        name: its `operationId`.
        changes: whether it always wants a token.
        verb: of the change, for the audit log.
        status: of a success.
    """

    name: str
    method: str
    path: str
    summary: str
    reply: Any
    body: type[ChangeRequest] | None = None
    query: tuple[Query, ...] = ()
    changes: bool = False
    verb: str = ""
    status: int = 200


_WATCH = Query(name="watch", schema={"type": "string", "minLength": 1}, summary="Only this watch.")
_LIMIT = Query(
    name="limit",
    schema={"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    summary="Most entries of the answer.",
)
_ROOT = "/api/v1"
_OF_WATCH = _ROOT + "/watches/{watch}"


def _change(
    verb: str, summary: str, *, status: int = 200, body: type[ChangeRequest] = ChangeRequest
) -> Operation:
    return Operation(
        name=f"{verb}Watch",
        method="POST",
        path=f"{_OF_WATCH}/{verb}",
        summary=summary,
        reply=ChangeDone,
        body=body,
        changes=True,
        verb=verb,
        status=status,
    )


OPERATIONS = (
    Operation(
        name="getStatus",
        method="GET",
        path=f"{_ROOT}/status",
        summary="Every watch: mark, lag, samples by state, polls, batches and their steps, picks, failures.",
        reply=Overview,
    ),
    Operation(name="getWatch", method="GET", path=_OF_WATCH, summary="One watch.", reply=WatchView),
    Operation(
        name="getAudit",
        method="GET",
        path=f"{_OF_WATCH}/audit",
        summary="The last full comparison of a watch's datasource, ledger and dataset.",
        reply=ReconcileReport,
    ),
    Operation(
        name="getPlan",
        method="GET",
        path=f"{_OF_WATCH}/plan",
        summary="What the next poll and its batches would do and cost; lists the datasource and does nothing.",
        reply=Plan,
    ),
    Operation(
        name="getLives",
        method="GET",
        path=f"{_ROOT}/files",
        summary="Why is this file where it is? Its whole life, in each watch that listed it.",
        reply=list[Life],
        query=(
            Query(
                name="name",
                schema={"type": "string", "minLength": 1},
                required=True,
                summary="The whole name in the datasource.",
            ),
            _WATCH,
        ),
    ),
    Operation(
        name="getFailures",
        method="GET",
        path=f"{_ROOT}/failures",
        summary="Dead runs, quarantined and vanished samples, with their reasons.",
        reply=Failures,
        query=(_WATCH, _LIMIT),
    ),
    Operation(
        name="getLog",
        method="GET",
        path=f"{_ROOT}/log",
        summary="The audit log, newest first: who changed what, and when.",
        reply=list[AuditEntry],
        query=(
            _WATCH,
            _LIMIT,
            Query(
                name="before",
                schema={"type": "integer", "minimum": 1, "maximum": LARGEST_ID},
                summary="Only entries with a smaller id: the next page.",
            ),
        ),
    ),
    _change("poll", "Poll now.", status=202),
    _change("audit", "Compare datasource, ledger and dataset in full, now.", status=202),
    _change("pause", "Stop polls and new runs."),
    _change("resume", "Let a paused watch go on."),
    _change("rewind", "Set the mark back, so that what is newer is listed again.", body=RewindRequest),
    _change(
        "replay",
        "Give dead runs and deliveries, quarantined and vanished samples another chance.",
        body=ReplayRequest,
    ),
    _change(
        "drop",
        "Let dead deliveries be, such as those to a receiver that is gone; nobody is told of them any more.",
        body=DropRequest,
    ),
)
