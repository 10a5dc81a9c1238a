"""Prometheus series that are counted as things happen; states are read from the store at scrape (`ops.collector`).

Labels come from closed sets, and series of failures stand at 0 from the start, so that `rate()` sees the first one.
"""

from __future__ import annotations

import platform as machine
import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from watcher import __version__
from watcher.domain.models import Step, Via

# A second series for each, telling when it was made, is of no use to anyone who has `process_start_time_seconds`.
disable_created_metrics()  # type: ignore[no-untyped-call]

POLL_OUTCOMES = ("ok", "failed", "skipped")
RUN_OUTCOMES = ("done", "retried", "dead", "snoozed", "discarded", "interrupted")
DELIVERY_OUTCOMES = ("done", "retried", "dead", "interrupted")

_RUN_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LATENESS_BUCKETS_S = (1, 5, 15, 60, 300, 600, 1800, 3600, 21600, 86400)


class Metrics:
    """The series of one daemon, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.samples_discovered = Counter(
            "watcher_samples_discovered",
            "Samples that entered the ledger, by how they were found.",
            ["watch", "via"],
            registry=self.registry,
        )
        self.samples_overwritten = Counter(
            "watcher_samples_overwritten",
            "Times that a processed object was found written again under its name.",
            ["watch"],
            registry=self.registry,
        )
        self.sample_lateness_s = Histogram(
            "watcher_sample_lateness_seconds",
            "For samples found in the overlap or by a reconcile: time from the object's last change to its discovery.",
            ["watch"],
            buckets=_LATENESS_BUCKETS_S,
            registry=self.registry,
        )
        self.polls = Counter(
            "watcher_polls", "Polls by how they ended.", ["watch", "outcome"], registry=self.registry
        )
        self.poll_duration_s = Histogram(
            "watcher_poll_duration_seconds",
            "Length of successful polls.",
            ["watch"],
            buckets=_RUN_BUCKETS_S,
            registry=self.registry,
        )
        self.runs = Counter(
            "watcher_runs",
            "Attempts of runs by how they ended.",
            ["watch", "step", "outcome"],
            registry=self.registry,
        )
        self.run_duration_s = Histogram(
            "watcher_run_duration_seconds",
            "Length of attempts of runs.",
            ["step", "outcome"],
            buckets=_RUN_BUCKETS_S,
            registry=self.registry,
        )
        self.delivery_attempts = Counter(
            "watcher_delivery_attempts",
            "Attempts of deliveries by how they ended.",
            ["watch", "sink", "outcome"],
            registry=self.registry,
        )
        self.delivery_duration_s = Histogram(
            "watcher_delivery_duration_seconds",
            "Length of attempts of deliveries, by kind of sink.",
            ["kind", "outcome"],
            buckets=_RUN_BUCKETS_S,
            registry=self.registry,
        )
        self.api_requests = Counter(
            "watcher_api_requests",
            "Requests to the API by endpoint and status code; code is `error` where no answer came.",
            ["endpoint", "code"],
            registry=self.registry,
        )
        self.api_request_duration_s = Histogram(
            "watcher_api_request_duration_seconds",
            "Length of requests to the API.",
            ["endpoint"],
            buckets=_REQUEST_BUCKETS_S,
            registry=self.registry,
        )
        self.clock_skew_s = Gauge(
            "watcher_clock_skew_seconds",
            "The server's clock minus this machine's, at the last poll; absent before it.",
            [],
            registry=None,
        )
        self._skew_registered = False
        self._skew_lock = threading.Lock()
        self.leader = Gauge(
            "watcher_leader", "1 while this process leads: it polls and cuts batches.", registry=self.registry
        )
        self.fenced_writes = Counter(
            "watcher_fenced_writes",
            "Writes that were refused because this process no longer led.",
            registry=self.registry,
        )
        build = Gauge("watcher_build_info", "Always 1.", ["version", "python"], registry=self.registry)
        build.labels(version=__version__, python=machine.python_version()).set(1)

    def set_clock_skew(self, seconds: float) -> None:
        """Publishes the skew; the series does not exist before the first reading."""
        self.clock_skew_s.set(seconds)
        with self._skew_lock:  # the first polls of several watches come at once
            if not self._skew_registered:
                self._skew_registered = True
                self.registry.register(self.clock_skew_s)

    def init_watch(self, watch: str, *, steps: Iterable[Step], sinks: Iterable[str] = ()) -> None:
        """Starts all series of a watch at 0."""
        for via in Via:
            self.samples_discovered.labels(watch=watch, via=via)
        for outcome in POLL_OUTCOMES:
            self.polls.labels(watch=watch, outcome=outcome)
        for step in steps:
            for outcome in RUN_OUTCOMES:
                self.runs.labels(watch=watch, step=step, outcome=outcome)
        for sink in sinks:
            for outcome in DELIVERY_OUTCOMES:
                self.delivery_attempts.labels(watch=watch, sink=sink, outcome=outcome)
        self.sample_lateness_s.labels(watch=watch)
        self.samples_overwritten.labels(watch=watch)
        self.poll_duration_s.labels(watch=watch)

    def observe_request(self, *, endpoint: str, code: str, duration_s: float) -> None:
        """Counts one request; `endpoint` is a template such as `GET /v1/jobs/{jobId}`, never a path."""
        self.api_requests.labels(endpoint=endpoint, code=code).inc()
        self.api_request_duration_s.labels(endpoint=endpoint).observe(duration_s)
