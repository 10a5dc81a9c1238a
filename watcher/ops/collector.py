"""Gauges computed from the store at each scrape, so that a restart does not lie and removed watches disappear.

The store may hang. A scrape waits for it up to a limit, then tells the values of the last good reading, and that
they are old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import text

from watcher.database.engine import Database
from watcher.domain.clock import Clock, SystemClock
from watcher.domain.errors import StoreError
from watcher.logs import get_logger
from watcher.ops.bounded import Bounded
from watcher.ops.states import Family, Reading, read_states

_log = get_logger("collector")

SCRAPE_LIMIT_S = 2.0

UP = Family("watcher_scrape_store_up", "1 if the store answered this scrape in time.", ())
READ = Family(
    "watcher_scrape_store_timestamp_seconds",
    "When the states of this scrape were read; old while the store does not answer, absent before the first reading.",
    (),
)


class StoreCollector(Collector):
    """Reads states; one reading at a time, each in one transaction and within `limit_s`."""

    def __init__(
        self,
        database: Database,
        *,
        configured: frozenset[str],
        clock: Clock | None = None,
        disks: Mapping[str, Path] | None = None,
        limit_s: float = SCRAPE_LIMIT_S,
        is_published: Callable[[], bool] = lambda: True,
    ) -> None:
        """Keeps the values; see `read_states`.

        Of several replicas on one store the leader alone publishes its states (`is_published`), so that sums are right.
        """

        def read() -> Reading:
            if is_published():
                now_ms = int(now_s() * 1000)
                return read_states(database, configured=configured, disks=disks or {}, now_ms=now_ms)
            with database.read() as session:
                session.execute(text("SELECT 1"))
            return Reading()

        now_s = (clock or SystemClock()).now_s
        self._last: tuple[float, Reading] | None = None
        self._bounded = Bounded(
            lambda: (now_s(), read()),
            limit_s=limit_s,
            what="the store",
        )

    def describe(self) -> list[Metric]:
        """Nothing: the registry must not read the store at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The present states; without a store those of the last good reading."""
        try:
            self._last = self._bounded()
            is_up = True
        except (StoreError, OSError) as error:
            _log.warning("store.unreadable", error=str(error))
            is_up = False
        yield _build(UP, float(is_up))
        last = self._last
        if last is not None:
            yield _build(READ, last[0])
            yield from last[1].build_families()


def _build(family: Family, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(family.name, family.text, value=value)
