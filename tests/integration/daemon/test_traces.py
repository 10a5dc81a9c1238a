"""One trace a batch over daemon and platform, sent to a receiver that reads OTLP as a collector does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.acceptance.daemon_process import DaemonProcess
from tests.builders import NOW_MS
from tests.collector import Collector
from tests.photographs import write_photographs
from tests.waiting import wait_for
from watcher.domain.errors import ConfigError
from watcher.domain.models import Batch, BatchState, Step, Watch
from watcher.domain.tracing import compute_trace_id
from watcher.traces import NO_TRACING, OtlpTracing, build_tracing


@pytest.fixture
def receiver() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_batch_is_one_trace_over_its_runs_their_requests_and_the_platform(tmp_path, receiver):
    daemon = DaemonProcess(
        tmp_path / "data",
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_SCHEDULE_DELAY="200",
        WATCHER_WATCHES__INCOMING__BATCH__MIN_SAMPLES="3",
    )
    write_photographs(tmp_path / "data" / "incoming", 3, seed=1)
    try:
        daemon.start()
        wait_for(
            lambda: bool(receiver.named("batch") and receiver.named("run delivery")),
            limit_s=100,
            what="the root span of a batch and its delivery",
            explain=daemon.read_log,
        )
        assert daemon.terminate() == 0  # sends what is left
    finally:
        daemon.stop_if_running()
    (batch,) = receiver.named("batch")
    assert not batch.parent_span_id
    assert {a.key: a.value.string_value for a in batch.attributes}["state"] == "done"
    trace = [span for span in receiver.spans if span.trace_id == batch.trace_id]
    runs = {span.name: span for span in trace if span.name.startswith("run ")}
    assert set(runs) >= {"run upload", "run embed", "run sampling", "run delivery"}
    assert {span.parent_span_id for span in runs.values()} == {batch.span_id}
    by_id = {span.span_id: span for span in trace}
    requests = [span for span in trace if span.kind == span.SPAN_KIND_CLIENT]
    answers = [span for span in trace if span.kind == span.SPAN_KIND_SERVER]
    assert len(requests) >= 10
    assert {by_id[span.parent_span_id].name for span in requests} <= set(runs)
    assert {by_id[span.parent_span_id] in requests for span in answers} == {True}
    assert len(answers) == len(requests)
    for span in trace:
        assert span.name.partition("?")[2] == ""
        assert not any(word in str(span) for word in ("token", "sig="))
    logged = daemon.read_log()
    assert batch.trace_id.hex() in logged
    assert receiver.services == {"watcher"}


def test_trace_of_a_batch_is_the_same_in_every_process_and_another_for_another_batch():
    watch = Watch(id=1, name="gate", server="http://a", dataset_id="d" * 24)

    def build(number: int) -> Batch:
        return Batch(
            id=number,
            watch_id=1,
            number=number,
            key=f"gate-{number}",
            state=BatchState.OPEN,
            steps=(Step.UPLOAD,),
            n_samples=1,
            created_ms=NOW_MS,
        )

    first = compute_trace_id(watch, build(1))
    assert first == compute_trace_id(watch, build(1))
    assert first != compute_trace_id(watch, build(2))
    assert len(bytes.fromhex(first)) == 16


def _fail_in_a_run(tracing: OtlpTracing) -> None:
    with tracing.run(trace_id="ab" * 16, step="upload", facts={"watch": "gate"}) as tracer:
        with tracer.span("GET /v1/x", request_id="1-2") as headers:
            assert headers["traceparent"].split("-")[1] == "ab" * 16
        raise ValueError("s3cret")


def test_runs_in_two_processes_join_one_trace_and_failures_are_marked_without_their_text(receiver):
    for service in ("worker-a", "worker-b"):
        tracing = OtlpTracing(endpoint=receiver.url, service=service)
        with pytest.raises(ValueError, match="s3cret"):
            _fail_in_a_run(tracing)
        tracing.close()
    assert {span.trace_id for span in receiver.spans} == {bytes.fromhex("ab" * 16)}
    assert receiver.services == {"worker-a", "worker-b"}
    (first, _second) = receiver.named("run upload")
    assert (first.status.code, first.status.message) == (first.status.STATUS_CODE_ERROR, "ValueError")
    assert "s3cret" not in str(receiver.spans)


def test_traces_are_off_unless_an_endpoint_is_named():
    def build(endpoint: str | None = None, **environ: str) -> object:
        tracing = build_tracing(endpoint=endpoint, environ=environ, service="x")
        tracing.close()
        return tracing

    assert build() is NO_TRACING
    assert build("http://127.0.0.1:9", OTEL_SDK_DISABLED="true") is NO_TRACING
    assert build("http://127.0.0.1:9").is_on
    assert build(OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:9/v1/traces").is_on


def test_traces_without_the_extra_are_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"install datasource-watcher\[traces\]"):
        build_tracing(endpoint="http://127.0.0.1:9", environ={}, service="x")


def test_daemon_without_traces_loads_nothing_of_opentelemetry():
    code = "import sys, watcher.daemon, watcher.cli.app; sys.exit(any(m.startswith('opentelemetry') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
