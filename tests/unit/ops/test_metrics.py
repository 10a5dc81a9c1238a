"""The metrics that dashboards rely on: their names, their zeros, and states that come from the store."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import NOW_MS, NOW_S, add_batch, add_watch, list_names, load
from watcher import __version__
from watcher.database.engine import Database
from watcher.domain.models import Step, Via
from watcher.metrics import FAILURE_CODES, POLL_OUTCOMES, RUN_OUTCOMES, Metrics
from watcher.ops.collector import StoreCollector
from watcher.ops.publish import publish_states
from watcher.store import samples, watches

Labels = frozenset[tuple[str, str]]


def parse(answer: requests.Response) -> dict[str, dict[Labels, float]]:
    assert answer.status_code == 200
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            labels = frozenset(sample.labels.items())
            assert labels not in series, f"{sample.name} {labels} twice"
            series[labels] = sample.value
    return found


def scrape(ops) -> dict[str, dict[Labels, float]]:
    return parse(ops.get("/metrics"))


def value(found, name: str, **labels: str) -> float:
    return found[name][frozenset(labels.items())]


def test_scrape_has_the_names_that_dashboards_rely_on(sqlite_ops):
    watch = add_watch(sqlite_ops.database)
    list_names(sqlite_ops.database, watch, ["a"])
    with sqlite_ops.database.write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S, now_ms=NOW_MS)
    sqlite_ops.metrics.set_clock_skew(0.25)
    sqlite_ops.metrics.observe_request(endpoint="GET /v1/datasets", code="200", duration_s=0.1)
    sqlite_ops.metrics.run_duration_s.labels(step="upload", outcome="done").observe(1)
    names = set(scrape(sqlite_ops))
    assert names >= {
        "watcher_samples",
        "watcher_samples_discovered_total",
        "watcher_last_successful_poll_timestamp_seconds",
        "watcher_mark_timestamp_seconds",
        "watcher_oldest_pending_sample_timestamp_seconds",
        "watcher_sample_lateness_seconds_bucket",
        "watcher_runs_total",
        "watcher_run_duration_seconds_bucket",
        "watcher_api_requests_total",
        "watcher_api_request_duration_seconds_bucket",
        "watcher_clock_skew_seconds",
        "watcher_leader",
        "watcher_build_info",
        "watcher_scrape_store_up",
    }
    assert all(name.startswith("watcher_") for name in names)


def test_scrape_before_anything_happened_has_every_failure_at_zero(sqlite_ops):
    found = scrape(sqlite_ops)
    for watch in ("gate", "roof"):
        for outcome in POLL_OUTCOMES:
            assert value(found, "watcher_polls_total", watch=watch, outcome=outcome) == 0
        for via in Via:
            assert value(found, "watcher_samples_discovered_total", watch=watch, via=via.value) == 0
        for step in ("upload", "embed"):
            for outcome in RUN_OUTCOMES:
                assert value(found, "watcher_runs_total", watch=watch, step=step, outcome=outcome) == 0
        assert value(found, "watcher_sample_lateness_seconds_count", watch=watch) == 0
    assert found["watcher_build_info"]
    assert dict(next(iter(found["watcher_build_info"])))["version"] == __version__


@pytest.mark.scenario(number=34)
def test_scrape_before_anything_is_known_has_no_state_that_could_lie(sqlite_ops):
    found = scrape(sqlite_ops)
    for name in (
        "watcher_clock_skew_seconds",
        "watcher_mark_timestamp_seconds",
        "watcher_last_successful_poll_timestamp_seconds",
        "watcher_oldest_pending_sample_timestamp_seconds",
        "watcher_samples",
    ):
        assert name not in found


@pytest.mark.scenario(number=36)
def test_scrape_tells_the_states_of_the_store(ops):
    gate, roof = add_watch(ops.database, "gate"), add_watch(ops.database, "roof")
    add_batch(ops.database, gate, ["a", "b", "bad"], now_ms=NOW_MS + 5000)
    list_names(ops.database, gate, ["c"], now_ms=NOW_MS + 6000)
    with ops.database.write() as session:
        samples.record_quarantined(
            session, sample_id=load(ops.database, gate, "bad").id, reason="r", now_ms=NOW_MS
        )
        watches.update_mark(session, watch_id=gate.id, mark_s=NOW_S - 7, now_ms=NOW_MS + 2500)
    found = scrape(ops)
    assert value(found, "watcher_scrape_store_up") == 1
    states = {state: value(found, "watcher_samples", watch="gate", state=state) for state in
              ("waiting", "processing", "done", "quarantined", "gone")}  # fmt: skip
    assert states == {"waiting": 1, "processing": 2, "done": 0, "quarantined": 1, "gone": 0}
    assert value(found, "watcher_samples", watch="roof", state="waiting") == 0
    assert value(found, "watcher_mark_timestamp_seconds", watch="gate") == NOW_S - 7
    assert value(found, "watcher_last_successful_poll_timestamp_seconds", watch="gate") == NOW_S + 2.5
    assert value(found, "watcher_oldest_pending_sample_timestamp_seconds", watch="gate") == NOW_S + 5
    assert value(found, "watcher_batches", watch="gate", state="open") == 1
    assert value(found, "watcher_batches", watch="gate", state="dead") == 0
    assert frozenset({("watch", "roof")}) not in found["watcher_mark_timestamp_seconds"]
    assert frozenset({("watch", "roof")}) not in found["watcher_oldest_pending_sample_timestamp_seconds"]
    assert roof.mark_s is None


@pytest.mark.scenario(number=33)
def test_scrape_of_a_restarted_daemon_tells_the_same_states(sqlite_store_url, build_ops):
    seen = []
    for _start in range(2):
        ops = build_ops(sqlite_store_url)
        list_names(ops.database, add_watch(ops.database), ["a"])
        seen.append(scrape(ops)["watcher_samples"])
    assert seen[0] == seen[1]


@pytest.mark.scenario(number=35)
def test_scrape_leaves_out_a_watch_that_is_no_longer_configured(sqlite_ops):
    for name in ("gate", "removed"):
        list_names(sqlite_ops.database, add_watch(sqlite_ops.database, name), ["a"])
    answer = sqlite_ops.get("/metrics")
    assert 'watch="gate"' in answer.text
    assert "removed" not in answer.text


def test_scrape_without_a_store_still_answers_and_says_so(ops_without_store):
    ops_without_store.metrics.polls.labels(watch="gate", outcome="failed").inc()
    found = scrape(ops_without_store)
    assert value(found, "watcher_scrape_store_up") == 0
    assert value(found, "watcher_polls_total", watch="gate", outcome="failed") == 1
    assert "watcher_samples" not in found


def test_scrape_for_openmetrics_ends_as_that_format_demands(sqlite_ops):
    answer = sqlite_ops.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_scrapes_at_once_all_answer(ops):
    list_names(ops.database, add_watch(ops.database), ["a"])
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _n: scrape(ops), range(6)))
    assert [value(found, "watcher_scrape_store_up") for found in answers] == [1] * 6


@pytest.mark.scenario(number=37)
def test_labels_are_of_a_closed_set(sqlite_ops):
    watch = add_watch(sqlite_ops.database)
    list_names(sqlite_ops.database, watch, ["secret name.jpg"])
    sqlite_ops.metrics.observe_request(endpoint="GET /v1/jobs/{jobId}", code="200", duration_s=0.1)
    allowed = {"watch", "state", "via", "outcome", "step", "endpoint", "code", "le", "version", "python"}
    allowed |= {"direction", "disk", "loop"}
    for series in scrape(sqlite_ops).values():
        for labels in series:
            assert {name for name, _ in labels} <= allowed
    assert "secret name" not in sqlite_ops.get("/metrics").text


def test_clock_skew_is_published_from_its_first_reading_on():
    metrics = Metrics()
    assert metrics.registry.get_sample_value("watcher_clock_skew_seconds") is None
    for skew in (1.5, -2.0):
        metrics.set_clock_skew(skew)
        assert metrics.registry.get_sample_value("watcher_clock_skew_seconds") == skew


def test_registries_of_two_daemons_in_one_process_do_not_meet():
    first, second = Metrics(), Metrics()
    first.leader.set(1)
    assert second.registry.get_sample_value("watcher_leader") == 0


def test_scrape_while_the_store_hangs_tells_the_last_good_values_and_that_they_are_old(sqlite_ops, tmp_path):
    watch = add_watch(sqlite_ops.database)
    list_names(sqlite_ops.database, watch, ["a"])
    metrics, reads = Metrics(), threading.Event()
    reads.set()

    class HangingDatabase(Database):
        @contextmanager
        def read(self):
            assert reads.wait(60)
            with super().read() as session:
                yield session

    metrics.registry.register(
        StoreCollector(
            HangingDatabase(sqlite_ops.database.engine),
            configured=frozenset({"gate"}),
            clock=sqlite_ops.clock,
            disks={"data": tmp_path},
            limit_s=20.0,
        )
    )
    collector = next(c for c in metrics.registry._collector_to_names if isinstance(c, StoreCollector))

    def tell(name, **labels):
        return metrics.registry.get_sample_value(name, labels)

    assert tell("watcher_scrape_store_up") == 1
    collector._bounded._limit_s = 0.05
    reads.clear()
    list_names(sqlite_ops.database, watch, ["b"])
    sqlite_ops.clock.advance(100)
    assert tell("watcher_scrape_store_up") == 0
    assert tell("watcher_samples", watch="gate", state="waiting") == 1
    assert tell("watcher_scrape_store_timestamp_seconds") == NOW_S
    collector._bounded._limit_s = 20.0
    reads.set()
    tell("watcher_scrape_store_up")  # joins the reading that hung
    assert tell("watcher_scrape_store_up") == 1
    assert tell("watcher_samples", watch="gate", state="waiting") == 2


def test_scrape_tells_queue_disk_and_size_of_the_store(ops):
    add_batch(ops.database, add_watch(ops.database), ["a"])
    found = scrape(ops)
    assert value(found, "watcher_queue_runs", watch="gate", state="ready") == 1
    assert value(found, "watcher_queue_runs", watch="gate", state="running") == 0
    assert value(found, "watcher_queue_oldest_ready_timestamp_seconds", watch="gate") == NOW_S
    assert value(found, "watcher_last_sample_timestamp_seconds", watch="gate") == NOW_S
    assert value(found, "watcher_store_size_bytes") > 10_000
    assert (
        0
        < value(found, "watcher_disk_free_bytes", disk="data")
        <= value(found, "watcher_disk_size_bytes", disk="data")
    )


def test_endpoint_seen_first_has_all_its_failures_at_zero_and_rare_codes_by_class(sqlite_ops):
    observe = sqlite_ops.metrics.observe_request
    observe(endpoint="GET /v1/datasets", code="200", duration_s=0.1, n_received_bytes=70)
    observe(endpoint="GET /v1/datasets", code="418", duration_s=0.1, is_retry=True, n_sent_bytes=5)
    found = scrape(sqlite_ops)
    for code in FAILURE_CODES:
        assert value(found, "watcher_api_requests_total", endpoint="GET /v1/datasets", code=code) == 0
    assert value(found, "watcher_api_requests_total", endpoint="GET /v1/datasets", code="4xx") == 1
    assert value(found, "watcher_api_retries_total", endpoint="GET /v1/datasets") == 1
    assert value(found, "watcher_api_bytes_total", direction="received") == 70
    assert value(found, "watcher_api_bytes_total", direction="sent") == 5


def test_duration_of_a_run_carries_the_trace_of_its_batch_in_openmetrics_alone(sqlite_ops):
    sqlite_ops.metrics.observe_run(
        watch="gate", step=Step.UPLOAD, outcome="done", duration_s=1.5, trace_id="ab" * 16
    )
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert f'# {{trace_id="{"ab" * 16}"}} 1.5' in sqlite_ops.get("/metrics", headers=accept).text
    assert "trace_id" not in sqlite_ops.get("/metrics").text


def test_published_states_follow_credentials_loops_and_statements(sqlite_ops, tmp_path):
    metrics = Metrics()
    publish_states(
        metrics,
        database=sqlite_ops.database,
        access=sqlite_ops.access,
        heartbeats=sqlite_ops.heartbeats,
        clock=sqlite_ops.clock,
        watches=["gate"],
        data_dir=tmp_path,
    )
    tell = metrics.registry.get_sample_value
    assert tell("watcher_credentials_refused") == 0
    sqlite_ops.access.observe(endpoint="GET /v1/datasets", code="401")
    assert tell("watcher_credentials_refused") == 1
    with sqlite_ops.heartbeats.watching("poll", "gate", within_s=10):
        sqlite_ops.clock.advance(11)
        assert tell("watcher_stalled_loops", {"loop": "poll"}) == 1
        assert tell("watcher_stalled_loops", {"loop": "worker"}) == 0
    assert tell("watcher_stalled_loops", {"loop": "poll"}) == 0
    before = (
        tell("watcher_store_query_duration_seconds_count"),
        tell("watcher_store_commit_duration_seconds_count"),
    )
    add_watch(sqlite_ops.database, "other")
    assert tell("watcher_store_query_duration_seconds_count") > before[0]
    assert tell("watcher_store_commit_duration_seconds_count") == before[1] + 1
    assert tell("process_start_time_seconds") > 0
