"""The alert rules, from one objective: how long a sample may take from its arrival to the end of its pipeline.

Every limit and every window is a share of that objective, so that whoever changes it changes all of them. What has a
limit of its own (the silence of a source, the interval of polls) is a metric, and compared with that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

SKEW_LIMIT_S = 10
DISK_LIMIT = 0.1
QUARANTINE_SHARE = 0.05
NOVELTY_LIMIT = 0.2
VECTORLESS_SHARE = 0.05
REPEAT_SHARE = 0.05
DARK_LIMIT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One rule.

    Attributes:
        expr: PromQL; every series it gives is an alert.
        hold_s: it must hold this long first.
        severity: `page` wakes somebody, `ticket` waits for the day.
        summary: one line, with the labels of the series.
        description: what it means for the images.
    """

    name: str
    expr: str
    hold_s: float
    severity: str
    summary: str
    description: str


def build_alerts(*, objective_s: float) -> list[Alert]:
    """All rules for an objective in seconds; the first ones are the most urgent."""
    window = format_span(objective_s)
    long_window = format_span(4 * objective_s)
    moment_s, while_s = objective_s / 15, objective_s / 3
    running = "unless on (job, watch) (max by (job, watch) (watcher_paused) == 1)"
    return [
        Alert(
            name="WatcherNoLeader",
            expr="sum by (job) (watcher_leader) == 0 or absent(watcher_leader)",
            hold_s=objective_s / 5,
            severity="page",
            summary="No daemon polls",
            description="No daemon holds the store, or none is scraped: nothing new is found.",
        ),
        Alert(
            name="WatcherTwoLeaders",
            expr="sum by (job) (watcher_leader) > 1",
            hold_s=moment_s,
            severity="page",
            summary="{{ $value }} daemons of {{ $labels.job }} believe that they lead",
            description="Two daemons poll at once; writes are fenced, so nothing is lost, but one of them must go.",
        ),
        Alert(
            name="WatcherCredentialsRefused",
            expr="max by (job, instance) (watcher_credentials_refused) == 1",
            hold_s=moment_s,
            severity="page",
            summary="The server refuses the token of {{ $labels.instance }}",
            description="Nothing can be listed or uploaded until the token is accepted again. Nothing is lost.",
        ),
        Alert(
            name="WatcherPollStale",
            expr="(time() - max by (job, watch) (watcher_last_successful_poll_timestamp_seconds)"
            " > 3 * max by (job, watch) (watcher_poll_interval_seconds)"
            f" + {while_s:g}) {running}",
            hold_s=moment_s,
            severity="page",
            summary="{{ $labels.watch }} was last polled {{ $value | humanizeDuration }} ago",
            description="Polls fail or hang, so new images are not found. They are not lost: the mark stands still.",
        ),
        Alert(
            name="WatcherNeverPolled",
            expr="(max by (job, watch) (watcher_poll_interval_seconds)"
            " unless on (job, watch) watcher_last_successful_poll_timestamp_seconds)"
            f" {running}",
            hold_s=while_s,
            severity="page",
            summary="{{ $labels.watch }} was never polled",
            description="The first poll of this watch has not succeeded since it was configured.",
        ),
        Alert(
            name="WatcherSamplesPending",
            expr="(time() - max by (job, watch) (watcher_oldest_pending_sample_timestamp_seconds)"
            f" > {objective_s:g}) {running}",
            hold_s=moment_s,
            severity="page",
            summary="A sample of {{ $labels.watch }} waits for {{ $value | humanizeDuration }}",
            description="The oldest unfinished sample is older than the freshness objective.",
        ),
        Alert(
            name="WatcherLoopStalled",
            expr="max by (job, instance, loop) (watcher_stalled_loops) > 0",
            hold_s=moment_s,
            severity="page",
            summary="{{ $value }} {{ $labels.loop }} loops of {{ $labels.instance }} do not move",
            description="A poll, a comparison, a run or the scheduler hangs. /health/live fails too, so that whoever"
            " watches it starts the daemon anew.",
        ),
        Alert(
            name="WatcherStoreUnreadable",
            expr="min by (job, instance) (watcher_scrape_store_up) == 0",
            hold_s=moment_s,
            severity="page",
            summary="The store of {{ $labels.instance }} does not answer",
            description="States shown are those of the last good reading. Nothing moves until the store answers.",
        ),
        Alert(
            name="WatcherDiskNearlyFull",
            expr=f"min by (job, instance, disk) (watcher_disk_free_bytes / watcher_disk_size_bytes) < {DISK_LIMIT}",
            hold_s=moment_s,
            severity="page",
            summary="The {{ $labels.disk }} disk of {{ $labels.instance }}: {{ $value | humanizePercentage }} is left",
            description="With a full disk nothing can be written. Nothing is lost, but nothing moves either.",
        ),
        Alert(
            name="WatcherRestartLoop",
            expr=f"changes(process_start_time_seconds[{window}]) > 2 and on (job, instance) watcher_build_info",
            hold_s=0,
            severity="page",
            summary="{{ $labels.instance }} started {{ $value }} times lately",
            description="The daemon ends and is started again and again.",
        ),
        Alert(
            name="WatcherSamplesMissing",
            expr="max by (job, watch) (watcher_reconcile_missing_samples) > 0",
            hold_s=0,
            severity="ticket",
            summary="The full comparison of {{ $labels.watch }} found {{ $value }} samples that no poll had found",
            description="They are in the ledger now. Objects show up later than the overlap reaches back.",
        ),
        Alert(
            name="WatcherSourceAhead",
            expr=f"(max by (job, watch) (watcher_source_ahead_samples) > 0) {running}",
            hold_s=0,
            severity="page",
            summary="Polls of {{ $labels.watch }} pass over what its source has: {{ $value }} objects at least",
            description="Polls end well, and objects that the source lists are not in the ledger. The full comparison"
            " will find them, but until then nothing new may arrive.",
        ),
        Alert(
            name="WatcherBatchesDead",
            expr='max by (job, watch) (watcher_batches{state="dead"}'
            f' - min_over_time(watcher_batches{{state="dead"}}[{long_window}])) > 0',
            hold_s=0,
            severity="page",
            summary="{{ $value }} batches of {{ $labels.watch }} gave up lately",
            description="A step failed for good; the samples of the batch stay where they are until it is replayed.",
        ),
        Alert(
            name="WatcherQuarantineGrowing",
            expr='(max by (job, watch) (watcher_samples{state="quarantined"}'
            f' - min_over_time(watcher_samples{{state="quarantined"}}[{long_window}])) > 3)'
            f" > {QUARANTINE_SHARE} * sum by (job, watch) (increase(watcher_samples_discovered_total[{long_window}]))",
            hold_s=0,
            severity="ticket",
            summary="{{ $value }} samples of {{ $labels.watch }} were set aside lately",
            description="More than a twentieth of what arrived cannot be processed.",
        ),
        Alert(
            name="WatcherUnknownOutcome",
            expr="time() - max by (job, watch) (watcher_oldest_unknown_outcome_timestamp_seconds)"
            f" > {objective_s:g}",
            hold_s=while_s,
            severity="ticket",
            summary="A run of {{ $labels.watch }} has had no known outcome for {{ $value | humanizeDuration }}",
            description="The answer of the server to a change was lost, and looking it up has not succeeded either.",
        ),
        Alert(
            name="WatcherDeliveryFailing",
            expr="sum by (job, watch, sink)"
            f' (increase(watcher_delivery_attempts_total{{outcome=~"retried|dead"}}[{window}])) > 0'
            " unless on (job, watch, sink)"
            f' (sum by (job, watch, sink) (increase(watcher_delivery_attempts_total{{outcome="done"}}[{window}])) > 0)',
            hold_s=while_s,
            severity="page",
            summary="Picks of {{ $labels.watch }} do not reach {{ $labels.sink }}",
            description="Every attempt of a delivery failed lately. It is repeated until it succeeds.",
        ),
        Alert(
            name="WatcherSourceSilent",
            expr="(time() - max by (job, watch) (watcher_last_sample_timestamp_seconds)"
            f" > max by (job, watch) (watcher_silent_after_seconds)) {running}",
            hold_s=moment_s,
            severity="ticket",
            summary="{{ $labels.watch }} has had no new sample for {{ $value | humanizeDuration }}",
            description="Polls succeed and find nothing: the cameras, or whatever fills the datasource, may be off.",
        ),
        Alert(
            name="WatcherNoveltyCollapsed",
            expr=f"max by (job, watch) (max_over_time(watcher_batch_novelty_ratio[{window}])) < {NOVELTY_LIMIT}",
            hold_s=while_s,
            severity="ticket",
            summary="New pictures of {{ $labels.watch }} are much like those known already",
            description="The novelty of its batches fell below a fifth of what it was: a camera may be stuck.",
        ),
        Alert(
            name="WatcherFramesRepeated",
            expr=f"(sum by (job, watch) (increase(watcher_repeated_samples_total[{long_window}])) > 3)"
            f" > {REPEAT_SHARE} * sum by (job, watch) (increase(watcher_measured_samples_total[{long_window}]))",
            hold_s=while_s,
            severity="ticket",
            summary="{{ $labels.watch }} got {{ $value | humanize }} pictures lately that it had before",
            description="More than a twentieth are the same pictures again: one of its cameras may be stuck.",
        ),
        Alert(
            name="WatcherStreamDark",
            expr=f"sum by (job, watch) (increase(watcher_dark_samples_total[{long_window}]))"
            f" > {DARK_LIMIT} * sum by (job, watch) (increase(watcher_samples_discovered_total[{long_window}]))",
            hold_s=while_s,
            severity="ticket",
            summary="Most new pictures of {{ $labels.watch }} show next to nothing",
            description="More than half of what arrived is black or without texture: a lens may be covered.",
        ),
        Alert(
            name="WatcherVectorsMissing",
            expr=f"(sum by (job, watch) (increase(watcher_samples_without_vector_total[{long_window}])) > 3)"
            f" > {VECTORLESS_SHARE} * sum by (job, watch) (increase(watcher_samples_discovered_total[{long_window}]))",
            hold_s=0,
            severity="ticket",
            summary="The embedder made no vector of {{ $value | humanize }} new pictures of {{ $labels.watch }}",
            description="More than a twentieth of what arrived can neither be compared nor picked by its vector.",
        ),
        Alert(
            name="WatcherClockSkew",
            expr=f"max by (job, instance) (abs(watcher_clock_skew_seconds)) > {SKEW_LIMIT_S}",
            hold_s=moment_s,
            severity="ticket",
            summary="The clocks of {{ $labels.instance }} and its server are {{ $value }} s apart",
            description="Windows follow the server's clock, so nothing is missed; leases and times shown are off.",
        ),
    ]


def render_alerts(*, objective_s: float, runbook_url: str) -> str:
    """The rules as a file for Prometheus.

    Args:
        objective_s: see `build_alerts`.
        runbook_url: where the runbook is; each alert links to the section of its name.
    """
    lines = [
        "# Made by `watcher alerts --render`; every limit follows from the freshness objective:",
        f"# WATCHER_ALERTS__FRESHNESS_OBJECTIVE_S={objective_s:g}",
        "groups:",
        "  - name: watcher",
        "    rules:",
    ]
    for alert in build_alerts(objective_s=objective_s):
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {_quote(alert.expr)}",
            f"        for: {format_span(alert.hold_s)}",
            "        labels:",
            f"          severity: {alert.severity}",
            "        annotations:",
            f"          summary: {_quote(alert.summary)}",
            f"          description: {_quote(alert.description)}",
            f"          runbook_url: {_quote(f'{runbook_url}#{alert.name.lower()}')}",
        ]
    return "\n".join(lines) + "\n"


def format_span(seconds: float) -> str:
    """A duration as Prometheus writes it: `15m`, `300s`, `400ms`."""
    milliseconds = round(seconds * 1000)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds >= size and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a YAML string
