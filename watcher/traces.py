"""OpenTelemetry traces: one a batch, over every process that works on it and the platform it calls.

Off unless an endpoint is configured, and then nothing of OpenTelemetry is imported. The trace of a batch is derived
from the batch (`domain/tracing.py`), so runs in any process join it without telling each other; its root span is sent
when the batch ends. Requests carry `traceparent`, by which the platform joins.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from watcher.domain.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

_FLUSH_MS = 5000


class RequestTracer(Protocol):
    """Makes a span of each request of one run, in whatever thread it is made; see `lightly.observation`."""

    def span(self, endpoint: str, *, request_id: str) -> AbstractContextManager[Mapping[str, str]]:
        """A span round one request; gives the headers by which the server joins."""


class Tracing:
    """No traces; `OtlpTracing` makes them."""

    is_on = False

    def run(
        self, *, trace_id: str, step: str, facts: Mapping[str, str | int]
    ) -> AbstractContextManager[RequestTracer | None]:
        """A span round one attempt of a run, in the trace of its batch."""
        del trace_id, step, facts
        return nullcontext()

    def end_batch(
        self, *, trace_id: str, created_ms: int, finished_ms: int, facts: Mapping[str, str | int]
    ) -> None:
        """The root span of a batch that ended."""

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """The application, with a span for each request that belongs to a trace."""
        return app

    def close(self) -> None:
        """Sends what is left, for a few seconds at the most."""


NO_TRACING = Tracing()


def build_tracing(*, endpoint: str | None, environ: Mapping[str, str], service: str) -> Tracing:
    """Traces to `endpoint`, or to what the standard variables of OpenTelemetry name; none if nothing does.

    Args:
        endpoint: of a collector that speaks OTLP over HTTP, without `/v1/traces`.
        environ: read for `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_SDK_DISABLED`.
        service: name of the service, unless `OTEL_SERVICE_NAME` names it.

    Raises:
        ConfigError: traces are asked for, but the extra `traces` is not installed.
    """
    standard = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NO_TRACING
    if endpoint is None and not any(environ.get(name) for name in standard):
        return NO_TRACING
    try:
        return OtlpTracing(endpoint=endpoint, service=environ.get("OTEL_SERVICE_NAME") or service)
    except ImportError as error:
        raise ConfigError(
            "traces are configured, but OpenTelemetry is not installed: install datasource-watcher[traces], or unset "
            "WATCHER_TRACES__ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from error


@functools.cache
def open_tracing(endpoint: str | None) -> Tracing:
    """The traces of this process, the same ones at each call; none unless they are configured.

    Raises:
        ConfigError: see `build_tracing`.
    """
    return build_tracing(endpoint=endpoint, environ=os.environ, service="watcher")


class OtlpTracing(Tracing):
    """Sends spans over OTLP/HTTP, from a thread of its own; what cannot be sent is dropped."""

    is_on = True

    def __init__(self, *, endpoint: str | None, service: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - no cost while off
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - of an extra, loaded when it is asked for
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - of an extra, loaded when it is asked for
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - of an extra, loaded when it is asked for

        url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
        self._ids = _build_chosen_ids()
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": service}),
            id_generator=self._ids,
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("watcher")

    @contextmanager
    def run(self, *, trace_id: str, step: str, facts: Mapping[str, str | int]) -> Iterator[RequestTracer]:
        """See `Tracing`."""
        with self._span(f"run {step}", _build_root(trace_id), {"step": step, **facts}) as joined:
            yield joined

    def end_batch(
        self, *, trace_id: str, created_ms: int, finished_ms: int, facts: Mapping[str, str | int]
    ) -> None:
        """See `Tracing`."""
        from opentelemetry.context import Context  # noqa: PLC0415 - of an extra, loaded when it is asked for

        with self._ids.chosen(int(trace_id, 16), _choose_root_id(trace_id)):
            span = self._tracer.start_span(
                "batch", Context(), attributes=dict(facts), start_time=created_ms * 1_000_000
            )
        span.end(finished_ms * 1_000_000)

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """See `Tracing`."""
        return _ServerSpans(app, self._tracer)

    def close(self) -> None:
        """See `Tracing`."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()

    @contextmanager
    def _span(self, name: str, parent: Context, facts: Mapping[str, str | int]) -> Iterator[RequestTracer]:
        from opentelemetry.trace import StatusCode, set_span_in_context  # noqa: PLC0415 - of an extra, loaded when it is asked for

        span = self._tracer.start_span(name, parent, attributes=dict(facts))
        try:
            yield _RequestSpans(self._tracer, set_span_in_context(span, parent))
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            span.end()


class _RequestSpans:
    """Spans of requests below one span, whatever thread they are made in."""

    def __init__(self, tracer: Any, parent: Context) -> None:
        self._tracer = tracer
        self._parent = parent

    @contextmanager
    def span(self, endpoint: str, *, request_id: str) -> Iterator[Mapping[str, str]]:
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - of an extra, loaded when it is asked for

        span = self._tracer.start_span(
            endpoint, self._parent, kind=SpanKind.CLIENT, attributes={"request_id": request_id}
        )
        try:
            yield {"traceparent": _write_traceparent(span.get_span_context())}
        except BaseException as error:
            span.set_status(StatusCode.ERROR, type(error).__name__)  # its text may quote what the server said
            raise
        finally:
            span.end()


class _ServerSpans:
    """A span for each request that brings a `traceparent`."""

    def __init__(self, app: ASGIApp, tracer: Any) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        if scope["type"] != "http" or b"traceparent" not in headers:
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - of an extra, loaded when it is asked for
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - of an extra, loaded when it is asked for
            TraceContextTextMapPropagator,
        )

        parent = TraceContextTextMapPropagator().extract({"traceparent": headers[b"traceparent"]})
        facts = {"request_id": headers.get(b"x-request-id", "")[:128]}
        span = self._tracer.start_span(
            f"{scope['method']} platform", parent, kind=SpanKind.SERVER, attributes=facts
        )

        async def watch_status(message: Any) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(StatusCode.ERROR)
            await send(message)

        try:
            await self._app(scope, receive, watch_status)
        finally:
            span.end()


def _write_traceparent(span: SpanContext) -> str:
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}"


def _choose_root_id(trace_id: str) -> int:
    return int(trace_id[:16], 16) or 1


def _build_root(trace_id: str) -> Context:
    """The context of a batch's root span, which is sent only when the batch ends."""
    from opentelemetry.context import Context  # noqa: PLC0415 - of an extra, loaded when it is asked for
    from opentelemetry.trace import (  # noqa: PLC0415 - of an extra, loaded when it is asked for
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    root = SpanContext(
        trace_id=int(trace_id, 16),
        span_id=_choose_root_id(trace_id),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(root), Context())


def _build_chosen_ids() -> Any:
    """An id generator that gives random ids, or those chosen for a moment in the present thread."""
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 - of an extra, loaded when it is asked for

    class ChosenIds(RandomIdGenerator):
        def __init__(self) -> None:
            self._local = threading.local()

        @contextmanager
        def chosen(self, trace_id: int, span_id: int) -> Iterator[None]:
            self._local.ids = (trace_id, span_id)
            try:
                yield
            finally:
                self._local.ids = None

        def generate_trace_id(self) -> int:
            ids = getattr(self._local, "ids", None)
            return ids[0] if ids else super().generate_trace_id()

        def generate_span_id(self) -> int:
            ids = getattr(self._local, "ids", None)
            return ids[1] if ids else super().generate_span_id()

    return ChosenIds()
