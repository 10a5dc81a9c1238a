"""Changes over HTTP, each with the control token: poll, audit, pause, resume, rewind, replay."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from watcher.domain.errors import ConfigError, StoreUnavailableError, WatcherError
from watcher.domain.models import Watch
from watcher.ops.parts import OpsParts, build_json
from watcher.store import control, watches

_MOST_BODY_BYTES = 10_000


class ChangeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a change; `to_s` is unix seconds and belongs to `rewind`, `delivery` to `replay`."""

    actor: str = "http"
    to_s: int | None = None
    delivery: str | None = None


class Changes:
    """`POST /api/v1/watches/{watch}/{verb}`."""

    def __init__(self, parts: OpsParts) -> None:
        self._parts = parts

    async def handle(self, request: Request) -> Response:
        """Checks the token before anything is read, then carries the change out in a thread."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not secrets.compare_digest(given.encode(), self._parts.control_token.encode()):
            return build_json(
                {"error": "a control token is needed: see control.json in the data directory"}, status=401
            )
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BODY_BYTES:
                return build_json({"error": "the body is too large"}, status=413)
        return await run_in_threadpool(
            self._change, request.path_params["watch"], request.path_params["verb"], bytes(body)
        )

    def _change(self, watch: str, verb: str, body: bytes) -> Response:
        started = {"poll": self._parts.poll_now, "audit": self._parts.audit_now}.get(verb)
        if started is not None:
            if not started(watch):
                return build_json({"error": f"there is no watch {watch!r}"}, status=404)
            return build_json({"status": f"the {verb} starts now"}, status=202)
        try:
            change = msgspec.json.decode(body or b"{}", type=ChangeRequest)
            with self._parts.database.write() as session:
                done = apply_change(
                    session,
                    watch=watch,
                    verb=verb,
                    actor=change.actor,
                    to_s=change.to_s,
                    delivery=change.delivery,
                    now_ms=int(self._parts.clock.now_s() * 1000),
                )
        except StoreUnavailableError as error:
            return build_json({"error": str(error)}, status=503)
        except ConfigError as error:
            return build_json({"error": str(error)}, status=404)
        except (WatcherError, msgspec.MsgspecError) as error:
            return build_json({"error": str(error)}, status=422)
        return build_json({"status": done})


def apply_change(
    session: Session,
    *,
    watch: str,
    verb: str,
    actor: str,
    now_ms: int,
    to_s: int | None = None,
    delivery: str | None = None,
) -> str:
    """Carries out `pause`, `resume`, `rewind` or `replay` in the transaction.

    Args:
        session: an open transaction.
        watch: name of the watch.
        verb: which change.
        actor: who wants it, for the audit log.
        now_ms: the present.
        to_s: where `rewind` sets the mark, unix seconds.
        delivery: what alone `replay` makes again, `<batch>/<sink>` or `<batch>`.

    Returns:
        What was done, in words.

    Raises:
        ConfigError: there is no such watch or verb.
        StoreError: the mark would go forward.
    """
    row = watches.load_watch(session, name=watch)
    if row is None:
        raise ConfigError(f"there is no watch {watch!r} in the store: `watcher status` lists them")
    return _apply(session, row, verb, {"actor": actor, "now_ms": now_ms}, to_s, delivery)


def _apply(
    session: Session,
    watch: Watch,
    verb: str,
    who_when: dict[str, Any],
    to_s: int | None,
    delivery: str | None,
) -> str:
    if verb == "pause":
        changed = control.pause(session, watch=watch, **who_when)
        return "paused" if changed else "it was paused already"
    if verb == "resume":
        changed = control.resume(session, watch=watch, **who_when)
        return "resumed" if changed else "it was not paused"
    if verb == "rewind":
        if to_s is None:
            raise WatcherError("rewind needs the time to go back to")
        changed = control.rewind(session, watch=watch, to_s=to_s, **who_when)
        return f"the mark is at {to_s}" if changed else "the mark stands there already"
    if verb == "replay" and delivery is not None:
        n = control.replay_delivery(session, watch=watch, delivery=delivery, **who_when)
        return f"{n} deliveries resubmitted"
    if verb == "replay":
        n_runs, n_samples, n_deliveries = control.replay(session, watch=watch, **who_when)
        return f"{n_runs} runs, {n_samples} samples and {n_deliveries} deliveries resubmitted"
    raise ConfigError(f"there is no change {verb!r}; there are poll, audit, pause, resume, rewind, replay")
