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
disable_created_metrics()  # type: ignore[no-untyped-call] # prometheus-client leaves it so

POLL_OUTCOMES = ("ok", "failed", "skipped")
RUN_OUTCOMES = ("done", "retried", "dead", "snoozed", "discarded", "interrupted")
DELIVERY_OUTCOMES = ("done", "retried", "dead", "interrupted")
LOOPS = ("scheduler", "worker", "delivery", "poll", "sources", "reconcile", "standby", "presence")
# Other codes are counted by their class, `4xx`, so that no server can make series without end.
KNOWN_CODES = frozenset(
    {
        "200",
        "201",
        "202",
        "204",
        "206",
        "301",
        "302",
        "304",
        "400",
        "401",
        "403",
        "404",
        "405",
        "409",
        "410",
        "411",
    }
    | {"413", "416", "422", "429", "500", "502", "503", "504", "error"}
)
FAILURE_CODES = ("error", "401", "403", "404", "429", "500", "502", "503", "504")

_RUN_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STORE_BUCKETS_S = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15)
_LATENESS_BUCKETS_S = (1, 5, 15, 60, 300, 600, 1800, 3600, 21600, 86400)


class Metrics:
    """The series of one process, in a registry of its own."""

    def __init__(self, registry: CollectorRegistry | None = None, *, can_lead: bool = True) -> None:
        """Starts the series.

        Args:
            registry: where they are served from; a new one if absent.
            can_lead: whether this process may ever lead. A worker may not: it serves nothing of polls and of the
                lead, as a `watcher_leader 0` of its own would tell every alert that nobody leads.
        """
        self.registry = registry or CollectorRegistry()
        of_leaders = self.registry if can_lead else None
        self._endpoints: set[str] = set()
        self.samples_discovered = Counter(
            "watcher_samples_discovered",
            "Samples that entered the ledger, by how they were found.",
            ["watch", "via"],
            registry=of_leaders,
        )
        self.samples_overwritten = Counter(
            "watcher_samples_overwritten",
            "Times that a processed object was found written again under its name.",
            ["watch"],
            registry=of_leaders,
        )
        self.sample_lateness_s = Histogram(
            "watcher_sample_lateness_seconds",
            "For samples found in the overlap or by a reconcile: time from the object's last change to its discovery.",
            ["watch"],
            buckets=_LATENESS_BUCKETS_S,
            registry=of_leaders,
        )
        self.polls = Counter(
            "watcher_polls", "Polls by how they ended.", ["watch", "outcome"], registry=of_leaders
        )
        self.poll_duration_s = Histogram(
            "watcher_poll_duration_seconds",
            "Length of successful polls.",
            ["watch"],
            buckets=_RUN_BUCKETS_S,
            registry=of_leaders,
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
        self.api_retries = Counter(
            "watcher_api_retries",
            "Requests to the API that repeated one before, by endpoint.",
            ["endpoint"],
            registry=self.registry,
        )
        self.api_bytes = Counter(
            "watcher_api_bytes",
            "Bytes of bodies to and from the API and signed URLs, as far as their length was told.",
            ["direction"],
            registry=self.registry,
        )
        for direction in ("sent", "received"):
            self.api_bytes.labels(direction=direction)
        self.credentials_refused = Gauge(
            "watcher_credentials_refused",
            "1 while the newest word of the server on the token was a refusal.",
            registry=self.registry,
        )
        self.stalled_loops = Gauge(
            "watcher_stalled_loops",
            "Loops that have not moved within their limit, as at /health/live.",
            ["loop"],
            registry=self.registry,
        )
        for loop in LOOPS:
            self.stalled_loops.labels(loop=loop)
        self.poll_interval_s = Gauge(
            "watcher_poll_interval_seconds",
            "Longest time between two polls by the schedule.",
            ["watch"],
            registry=of_leaders,
        )
        self.silent_after_s = Gauge(
            "watcher_silent_after_seconds",
            "No new sample for this long counts as silence of the source; absent where that is switched off.",
            ["watch"],
            registry=of_leaders,
        )
        self.store_query_duration_s = Histogram(
            "watcher_store_query_duration_seconds",
            "Length of statements of the store.",
            buckets=_STORE_BUCKETS_S,
            registry=self.registry,
        )
        self.store_commit_duration_s = Histogram(
            "watcher_store_commit_duration_seconds",
            "Length of commits of the store.",
            buckets=_STORE_BUCKETS_S,
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
            "watcher_leader", "1 while this process leads: it polls and cuts batches.", registry=of_leaders
        )
        self.fenced_writes = Counter(
            "watcher_fenced_writes",
            "Writes that were refused because this process no longer led.",
            registry=of_leaders,
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

    def describe_watch(self, watch: str, *, poll_interval_s: float, silent_after_s: float) -> None:
        """Tells what of a watch's settings alerts depend on; `silent_after_s` 0 switches its alert off."""
        self.poll_interval_s.labels(watch=watch).set(poll_interval_s)
        if silent_after_s:
            self.silent_after_s.labels(watch=watch).set(silent_after_s)

    def observe_run(
        self, *, watch: str, step: Step, outcome: str, duration_s: float, trace_id: str | None = None
    ) -> None:
        """Counts one attempt of a run; the trace of its batch goes along as exemplar."""
        self.runs.labels(watch=watch, step=step, outcome=outcome).inc()
        exemplar = None if trace_id is None else {"trace_id": trace_id}
        self.run_duration_s.labels(step=step, outcome=outcome).observe(duration_s, exemplar)

    def observe_request(
        self,
        *,
        endpoint: str,
        code: str,
        duration_s: float,
        is_retry: bool = False,
        n_sent_bytes: int = 0,
        n_received_bytes: int = 0,
    ) -> None:
        """Counts one request.

        Args:
            endpoint: a template such as `GET /v1/jobs/{jobId}`, never a path.
            code: HTTP status, or `error`.
            duration_s: from the first byte written to the last byte read.
            is_retry: whether it repeats one before.
            n_sent_bytes: length of its body.
            n_received_bytes: length of the answer's body.
        """
        if endpoint not in self._endpoints:
            self._endpoints.add(endpoint)
            for failure in FAILURE_CODES:
                self.api_requests.labels(endpoint=endpoint, code=failure)
            self.api_retries.labels(endpoint=endpoint)
        known = code if code in KNOWN_CODES else f"{code[:1]}xx"
        self.api_requests.labels(endpoint=endpoint, code=known).inc()
        self.api_request_duration_s.labels(endpoint=endpoint).observe(duration_s)
        if is_retry:
            self.api_retries.labels(endpoint=endpoint).inc()
        self.api_bytes.labels(direction="sent").inc(n_sent_bytes)
        self.api_bytes.labels(direction="received").inc(n_received_bytes)
