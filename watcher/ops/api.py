"""The control API, `/api/v1/...`: tokens, limits, the one form of errors; each operation in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from watcher import __version__
from watcher.attach import find_own_output
from watcher.domain.errors import StoreError, UnknownWatchError, WatcherError
from watcher.domain.models import Watch
from watcher.logs import get_logger
from watcher.ops.bounded import Limited
from watcher.ops.changes import Wanted, find_watch, make_change, name_actor, request_duty
from watcher.ops.faults import Fault
from watcher.ops.life import load_lives
from watcher.ops.openapi import build_document
from watcher.ops.operations import (
    LARGEST_ID,
    OPERATIONS,
    ChangeDone,
    ChangeRequest,
    DropRequest,
    FailedDelivery,
    FailedRun,
    FailedSample,
    Failures,
    Operation,
    ReplayRequest,
    RewindRequest,
)
from watcher.ops.overview import load_overview
from watcher.ops.parts import OpsParts, build_json
from watcher.planning import plan_watch
from watcher.store import control, deliveries, reconciles, runs, watches
from watcher.store.duty_problems import Duty
from watcher.store.troubled import load_last_troubled

_log = get_logger("control")
_MOST_BODY_BYTES = 10_000
_PLAN_LIMIT_S = 300.0
_MOST_PLANS = 2
_MOST_NAME_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Ask:
    """A request after the checks that are the same for all.

    Attributes:
        caller: whose token was shown; None where none was asked for.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    caller: str | None


class Api:
    """Answers the operations of the table."""

    def __init__(self, parts: OpsParts, *, readings: Limited, changes: Limited) -> None:
        """Keeps the values; `readings` runs whatever reads the store, `changes` whatever changes it."""
        self._parts = parts
        self._readings = readings
        self._changes = changes
        self._plans = Limited(limit_s=_PLAN_LIMIT_S, most=_MOST_PLANS, what="the listing of the datasource")
        self._document = build_document(
            OPERATIONS, version=__version__, reading_needs_token=parts.read_needs_token
        )
        self._readers: dict[str, Callable[[Ask], object]] = {
            "getStatus": self._get_status,
            "getWatch": self._get_watch,
            "getAudit": self._get_audit,
            "getPlan": self._get_plan,
            "getLives": self._get_lives,
            "getFailures": self._get_failures,
            "getLog": self._get_log,
        }

    def build_routes(self) -> list[Route]:
        """A route a path, and the description of all."""
        by_path: dict[str, dict[str, Operation]] = {}
        for operation in OPERATIONS:
            by_path.setdefault(operation.path, {})[operation.method] = operation
        routes = [
            Route(path, self._build_endpoint(by_method), methods=list(by_method))
            for path, by_method in by_path.items()
        ]
        return [Route("/api/v1/openapi.json", self._describe), *routes]

    def _describe(self, _request: Request) -> Response:
        return Response(self._document, media_type="application/json", headers={"Cache-Control": "no-store"})

    def _build_endpoint(self, by_method: Mapping[str, Operation]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            operation = by_method["GET" if request.method == "HEAD" else request.method]
            try:
                caller = self._check_token(operation, request.headers.get("authorization", ""))
                body = await read_body(request) if operation.body is not None else b""
                ask = Ask(request.path_params, request.query_params, body, caller)
                reply = await run_in_threadpool(self._answer, operation, ask)
            except Fault as fault:
                return fault.build_answer()
            return build_json(reply, status=operation.status)

        return endpoint

    def _check_token(self, operation: Operation, authorization: str) -> str | None:
        if not (operation.changes or self._parts.read_needs_token):
            return None
        scheme, _, given = authorization.partition(" ")
        caller = self._parts.tokens.find_caller(given.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise Fault(
                401,
                "TOKEN_NEEDED",
                "a control token is needed, as header Authorization: Bearer: WATCHER_CONTROL__TOKEN, or the one in "
                "control.json in the data directory",
            )
        return caller

    def _answer(self, operation: Operation, ask: Ask) -> object:
        try:
            if not operation.changes:
                limited = self._plans if operation.name == "getPlan" else self._readings
                return limited.run(partial(self._readers[operation.name], ask))
            return self.change(
                operation,
                watch=ask.path["watch"],
                request=_decode(ask.body, operation.body or ChangeRequest),
                caller=ask.caller or "",
            )
        except UnknownWatchError as error:
            raise Fault(404, "WATCH_UNKNOWN", str(error)) from None
        except StoreError as error:
            raise Fault(503, "STORE_UNAVAILABLE", str(error)) from None
        except WatcherError as error:
            raise Fault(422, "REFUSED", str(error)) from None

    def change(self, operation: Operation, *, watch: str, request: ChangeRequest, caller: str) -> ChangeDone:
        """Carries a change out, for whoever showed a token.

        Raises:
            WatcherError: it is refused; an unknown watch is an UnknownWatchError.
            StoreUnavailableError: the store does not answer; the change may be carried out later.
        """
        return self._changes.run(partial(self._change, operation, watch, request, caller))

    def _change(self, operation: Operation, watch: str, request: ChangeRequest, caller: str) -> ChangeDone:
        verb = operation.verb
        who_when: dict[str, Any] = {
            "actor": name_actor(caller, request.actor),
            "now_ms": int(self._parts.clock.now_s() * 1000),
        }
        if verb in {"poll", "audit"}:
            status, changed = self._request(watch, Duty(verb), who_when), True
        else:
            status, changed = make_change(
                self._parts.database, watch=watch, verb=verb, wanted=_read_wanted(request), **who_when
            )
        _log.info("control.changed", watch=watch, verb=verb, actor=who_when["actor"], changed=changed)
        return ChangeDone(watch=watch, verb=verb, status=status, changed=changed)

    def _request(self, watch: str, duty: Duty, who_when: dict[str, Any]) -> str:
        if watch not in self._parts.configs:
            with self._parts.database.read() as session:
                find_watch(session, watch)
            raise Fault(409, "NOT_POLLED_HERE", f"the watch {watch!r} is no longer configured")
        _, told = request_duty(self._parts.database, watch=watch, duty=duty, **who_when)
        self._parts.look_for_requests()
        return told

    def _get_status(self, _ask: Ask) -> object:
        return self._load_overview(None)

    def _get_watch(self, ask: Ask) -> object:
        with self._parts.database.read() as session:
            find_watch(session, ask.path["watch"])
        return self._load_overview(ask.path["watch"]).watches[0]

    def _load_overview(self, watch: str | None) -> Any:
        return load_overview(
            self._parts.database,
            now_ms=int(self._parts.clock.now_s() * 1000),
            next_polls=self._parts.next_polls(),
            only=watch,
        )

    def _get_audit(self, ask: Ask) -> object:
        with self._parts.database.read() as session:
            row = find_watch(session, ask.path["watch"])
            last = reconciles.load_last_report(session, watch_id=row.id)
        if last is None:
            raise Fault(
                404, "AUDIT_UNKNOWN", f"the watch {row.name!r} was never compared in full: ask for it"
            )
        return last[1]

    def _get_plan(self, ask: Ask) -> object:
        name = ask.path["watch"]
        config = self._parts.configs.get(name)
        if config is None:
            with self._parts.database.read() as session:
                find_watch(session, name)
            raise Fault(409, "NOT_POLLED_HERE", f"the watch {name!r} is not configured in this process")
        return plan_watch(
            self._parts.database,
            config=config,
            transport=self._parts.transport,
            now_ms=int(self._parts.clock.now_s() * 1000),
            find_own_output=lambda dataset_id: find_own_output(
                self._parts.transport, dataset_id=dataset_id, configs=self._parts.configs.values()
            ),
        )

    def _get_lives(self, ask: Ask) -> object:
        name = ask.query.get("name", "")
        if not name or "\x00" in name or len(name) > _MOST_NAME_CHARACTERS:
            raise Fault(422, "VALUE_WRONG", "name is needed: the whole name of a file in the datasource")
        with self._parts.database.read() as session:
            watch = self._find_wanted(session, ask)
        found = load_lives(
            self._parts.database, file_name=name, watch=None if watch is None else watch.name, whole=True
        )
        if not found:
            raise Fault(404, "FILE_UNKNOWN", f"no watch has ever listed {name[:200]!r}")
        return found

    def _get_failures(self, ask: Ask) -> object:
        limit = _read_number(ask, "limit", default=100, most=1000)
        with self._parts.database.read() as session:
            watch = self._find_wanted(session, ask)
            return load_failures(session, watch=watch, limit=limit)

    def _get_log(self, ask: Ask) -> object:
        limit = _read_number(ask, "limit", default=100, most=1000)
        before_id = _read_number(ask, "before", default=LARGEST_ID, most=LARGEST_ID)
        with self._parts.database.read() as session:
            watch = self._find_wanted(session, ask)
            return control.load_audit_log(session, watch=watch, limit=limit, before_id=before_id)

    def _find_wanted(self, session: Any, ask: Ask) -> Watch | None:
        name = ask.query.get("watch")
        return None if name is None else find_watch(session, name)


def _read_wanted(request: ChangeRequest) -> Wanted:
    if isinstance(request, RewindRequest):
        return Wanted(to_s=request.to_s)
    if isinstance(request, ReplayRequest):
        return Wanted(delivery=request.delivery, file=request.file)
    if isinstance(request, DropRequest):
        return Wanted(delivery=request.delivery, sink=request.sink)
    return Wanted()


def load_failures(session: Any, *, watch: Watch | None, limit: int) -> Failures:
    """What was given up, of one watch or of all."""
    of = None if watch is None else watch.id
    names = {row.id: row.name for row in watches.load_watches(session)}
    troubled = load_last_troubled(session, watch_id=of, limit=limit)
    dead = runs.load_dead_runs(session, watch_id=of, limit=limit)
    undelivered = deliveries.load_dead_deliveries(session, watch_id=of, limit=limit)
    return Failures(
        runs=[
            FailedRun(
                watch=name,
                batch_id=run.batch_id,
                step=run.step.value,
                shard=run.shard,
                attempts=run.attempt,
                reason=run.error,
                finished_ms=run.finished_ms,
            )
            for name, run in dead
        ],
        deliveries=[
            FailedDelivery(
                watch=name,
                delivery=f"{batch}/{delivery.sink}",
                attempts=delivery.attempt,
                reason=delivery.error,
                finished_ms=delivery.finished_ms,
            )
            for name, batch, delivery in undelivered
        ],
        samples=[
            FailedSample(
                watch=names[sample.watch_id],
                file_name=sample.file_name,
                state=sample.state.value,
                reason=sample.reason,
                changed_ms=sample.changed_ms,
            )
            for sample in troubled
        ],
    )


async def read_body(request: Request) -> bytes:
    """The body of a request, or a Fault if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            raise Fault(413, "BODY_TOO_LARGE", f"the body is larger than {_MOST_BODY_BYTES} bytes")
    return bytes(body)


def _decode(body: bytes, shape: type[ChangeRequest]) -> ChangeRequest:
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Fault(422, "BODY_WRONG", f"the body cannot be used: {error}") from None


def _read_number(ask: Ask, name: str, *, default: int, most: int) -> int:
    text = ask.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 16 and 1 <= int(text) <= most):
        raise Fault(422, "VALUE_WRONG", f"{name} must be a whole number from 1 to {most}, not {text[:50]!r}")
    return int(text)
