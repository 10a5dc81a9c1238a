"""Gauges of deliveries, read from the store."""

from __future__ import annotations

from collections.abc import Collection

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy.orm import Session

from watcher.domain.delivery import DeliveryState
from watcher.store import deliveries


def read_delivery_gauges(session: Session, *, watch_names: Collection[str]) -> list[Metric]:
    """Deliveries by state, and how long the oldest has waited for its receiver's word."""
    by_state = GaugeMetricFamily(
        "watcher_deliveries", "Deliveries by state.", labels=["watch", "sink", "state"]
    )
    oldest = GaugeMetricFamily(
        "watcher_oldest_pending_delivery_timestamp_seconds",
        "Promise of the oldest delivery that its sink has not confirmed; absent when there is none.",
        labels=["watch", "sink"],
    )
    counts = deliveries.count_by_state(session)
    for watch, sink in sorted({(watch, sink) for watch, sink, _state in counts if watch in watch_names}):
        for state in DeliveryState:
            by_state.add_metric([watch, sink, state.value], counts.get((watch, sink, state), 0))
    for (watch, sink), promised_ms in deliveries.load_oldest_open(session).items():
        if watch in watch_names:
            oldest.add_metric([watch, sink], promised_ms / 1000)
    return [by_state, oldest]
