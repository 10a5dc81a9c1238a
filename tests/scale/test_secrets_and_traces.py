"""A worker process beside a leader and a platform: its token changes while it runs, and its spans join the batch's trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.collector import Collector
from tests.scale.scene import TOKEN, Scene
from tests.waiting import wait_for

pytestmark = pytest.mark.deep
RENEWED = f"{TOKEN}-renewed"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def renew_token(scene: Scene) -> None:
    """The platform comes back at its address and knows its first user by another token."""
    scene.platform.kill()
    given = {"0": scene.server.rpartition(":")[2], TOKEN: RENEWED}
    scene.platform._arguments = [given.get(argument, argument) for argument in scene.platform._arguments]
    scene.platform.start(until="datasources below")


def test_worker_and_leader_take_up_a_new_token_of_their_server_without_a_restart(build_scene, tmp_path):
    secret = tmp_path / "token"
    secret.write_text(TOKEN)
    scene = build_scene(LIGHTLY_TOKEN="", LIGHTLY_TOKEN_FILE=str(secret))
    replica, worker = scene.add_replica(), scene.add_worker()
    replica.start()
    worker.start()
    scene.put_pictures(5)
    scene.wait_until_done(5, limit_s=60)
    renew_token(scene)
    scene.put_pictures(5, start=5)
    wait_for(
        lambda: replica.read_metric("watcher_credentials_refused") == 1,
        what="the old token is refused",
        explain=scene.explain,
    )
    secret.write_text(RENEWED)
    scene.wait_until_done(10, limit_s=120)
    scene.transport.secret.replace(RENEWED)
    scene.check_exactly_once(10)
    for member in (replica, worker):
        log = member._place.with_suffix(".log").read_text()
        assert '"secret.changed"' in log
        assert log.count("daemon.started") + log.count("worker.started") == 1


def test_batch_is_one_trace_over_leader_worker_and_platform(build_scene, collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    scene = build_scene(WATCHER_WATCHES__CAMS__STEPS="upload,embed,sampling,deliver")
    replica = scene.add_replica(OTEL_SERVICE_NAME="leader")
    worker = scene.add_worker(OTEL_SERVICE_NAME="worker")
    scene.put_pictures(45)  # three shards
    replica.start()
    worker.start()
    scene.wait_until_done(45, limit_s=120)
    wait_for(
        lambda: collector.named("batch") and collector.named("run delivery"),
        what="the root span of a batch and its delivery",
        explain=scene.explain,
    )
    for member in (worker, replica, scene.platform):
        assert member.terminate() == 0  # sends what is left
    batches = {span.trace_id: span for span in collector.named("batch")}
    trace_id = collector.named("run delivery")[0].trace_id
    root = batches[trace_id]
    trace = [span for span in collector.spans if span.trace_id == trace_id]
    by_id = {span.span_id: span for span in trace}
    runs = [span for span in trace if span.name.startswith("run ")]
    assert {span.name for span in runs} >= {"run upload", "run embed", "run sampling", "run delivery"}
    assert {span.parent_span_id for span in runs} == {root.span_id}
    requests = [span for span in trace if span.kind == span.SPAN_KIND_CLIENT]
    answers = [span for span in trace if span.kind == span.SPAN_KIND_SERVER]
    assert {by_id[span.parent_span_id].name for span in requests} <= {span.name for span in runs}
    assert requests
    assert {by_id[span.parent_span_id] in requests for span in answers} == {True}
    assert collector.services_of(trace_id) == {"leader", "worker", "watcher"}
