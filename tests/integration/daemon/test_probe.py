"""The start-up probe against servers of every kind, and polls that work against each of them."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.daemon.conftest import QUICK_RETRY
from tests.integration.daemon.listing_double import DATASET_ID, TOKEN, ListingDouble, serve
from watcher.database.engine import Database
from watcher.domain.clock import SystemClock
from watcher.domain.errors import ProbeError
from watcher.domain.listing_facts import ListingFacts, TimeUnit, WindowEnd
from watcher.domain.models import PollRules, SampleState, Watch, WatchConfig
from watcher.domain.own_output import SERVERS_OUTPUT
from watcher.duties import Duties
from watcher.lightly.transport import Transport
from watcher.metrics import Metrics
from watcher.poll import Poller, PollReport
from watcher.probe import probe_watch
from watcher.reconcile import Reconciler
from watcher.store import control, samples, watches

IN, OUT = WindowEnd.INCLUSIVE, WindowEnd.EXCLUSIVE
KINDS = [
    (unit_ms, from_in, to_in) for unit_ms in (1000, 1) for from_in in (True, False) for to_in in (True, False)
]
MOST_REQUESTS = {1000: 12, 1: 45}


@dataclass
class Side:
    """Our side of a double."""

    database: Database
    double: ListingDouble
    overlap_s: int = 0

    def __post_init__(self) -> None:
        self.transport = Transport(server=self.double.url, token=TOKEN, retry=QUICK_RETRY, read_timeout_s=5)
        with self.database.write() as session:
            watches.ensure_watch(session, name="w", server="double", dataset_id=DATASET_ID, now_ms=1)

    def load(self) -> Watch:
        with self.database.read() as session:
            watch = watches.load_watch(session, name="w")
        assert watch is not None
        return watch

    def probe(self) -> bool:
        now_ms = int(time.time() * 1000)
        return probe_watch(self.database, self.transport, watch=self.load(), now_ms=now_ms)

    def build(self) -> dict[str, object]:
        return {
            "database": self.database,
            "transport": self.transport,
            "config": WatchConfig(
                name="w", dataset="w", poll=PollRules(hold_back_s=0, overlap_s=self.overlap_s)
            ),
            "watch_id": self.load().id,
            "clock": SystemClock(),
            "metrics": Metrics(),
        }

    def poll(self) -> PollReport:
        return Poller(**self.build()).run_cycle()

    def names(self) -> set[str]:
        with self.database.read() as session:
            found = samples.load_samples_named(
                session, watch_id=self.load().id, file_names=list(self.double.objects)
            )
        return set(found)


@pytest.mark.scenario(number=6)
@pytest.mark.parametrize(("unit_ms", "from_in", "to_in"), KINDS)
def test_probe_tells_the_unit_and_the_ends_and_polls_then_find_everything_once(
    database: Database, unit_ms: int, from_in: bool, to_in: bool, tmp_path: Path
) -> None:
    double = ListingDouble(unit_ms=unit_ms, from_inclusive=from_in, to_inclusive=to_in)
    with serve(double):
        for number in range(7):
            double.put(f"old {number}.jpg", ago_s=5000 - number * 300.4)
        side = Side(database, double)
        assert side.probe()
        assert double.n_requests <= MOST_REQUESTS[unit_ms]
        assert double.writes == []
        facts = side.load().listing
        assert facts.unit is (TimeUnit.SECONDS if unit_ms == 1000 else TimeUnit.MILLISECONDS)
        if unit_ms == 1000:
            assert (facts.from_end, facts.to_end) == (IN if from_in else OUT, IN if to_in else OUT)
        else:  # one end of a millisecond cannot be told from the other, so both are taken for excluded
            assert (facts.from_end, facts.to_end) == ((IN, IN) if from_in and to_in else (OUT, OUT))
        first = side.poll()
        assert first.n_new == 7
        assert double.mark == (first.to_s if unit_ms == 1000 else 1000 * first.to_s + 999)
        assert side.load().mark_s == first.to_s
        double.put("new.jpg", ago_s=-1.1)  # beyond the second that was listed: there is no overlap
        ends_s = time.monotonic() + 60
        while side.names() != set(double.objects):
            assert time.monotonic() < ends_s
            side.poll()
        assert Reconciler(**side.build(), work_dir=tmp_path).run().is_clean
        # The very ends of a window, and what lies beyond them by more than the millisecond that cannot be told.
        double.objects = {
            "before.jpg": 1_000_000_000 - 2,
            "first.jpg": 1_000_000_000,
            "last.jpg": 1_000_009_999,
            "behind.jpg": 1_000_010_000 + 1,
        }
        held = double.list(*facts.compute_range(1_000_000, 1_000_009))
        assert held == ["first.jpg", "last.jpg"]


def test_probe_without_objects_is_undecided_and_takes_back_what_was_polled_by_a_wrong_guess(
    database: Database,
) -> None:
    double = ListingDouble(unit_ms=1)
    with serve(double):
        side = Side(database, double)
        assert not side.probe()
        assert side.load().listing == ListingFacts()
        double.put("unseen.jpg", ago_s=50)
        assert side.poll().n_new == 0, "a server in milliseconds lists nothing for windows in seconds"
        assert side.probe()
        assert side.poll().n_new == 1


def test_probe_of_objects_that_tell_no_time_is_undecided(database: Database) -> None:
    double = ListingDouble(tells_time=False)
    with serve(double):
        double.put("a.jpg", ago_s=50)
        side = Side(database, double)
        assert not side.probe()
        assert side.poll().n_new == 1


def test_probe_of_a_server_that_ignores_windows_is_refused(database: Database) -> None:
    double = ListingDouble(ignores_windows=True)
    with serve(double):
        double.put("a.jpg", ago_s=50)
        with pytest.raises(ProbeError, match=r"'a.jpg' whatever window.*Ask its operator"):
            Side(database, double).probe()


@pytest.mark.parametrize("offset_s", [3600, -7200])
def test_probe_of_a_server_whose_clock_and_listing_disagree_is_refused(
    database: Database, offset_s: int
) -> None:
    double = ListingDouble(offset_s=offset_s)
    with serve(double):
        for number in range(4):
            double.put(f"{number}.jpg", ago_s=40_000 + 100 * number)
        with pytest.raises(ProbeError, match=f"dates objects {offset_s} s away.*Set the clocks"):
            Side(database, double).probe()
        assert double.n_requests <= 150


def test_probe_that_finds_other_facts_than_are_known_is_refused_until_a_rewind(database: Database) -> None:
    double = ListingDouble()
    with serve(double):
        double.put("a.jpg", ago_s=500)
        side = Side(database, double)
        assert side.probe()
        side.poll()
        double.unit_ms = 1
        with pytest.raises(ProbeError, match=r"as seconds.*as milliseconds.*watcher rewind w --to TIME"):
            side.probe()
        with database.write() as session:
            control.rewind(session, watch=side.load(), to_s=1000, actor="tester", now_ms=1)
        double.put("b.jpg", ago_s=400)
        assert side.probe()
        assert side.poll().n_new == 1
        assert side.names() == {"a.jpg", "b.jpg"}


def test_full_comparison_over_a_server_that_was_changed_meanwhile_is_refused_and_concludes_nothing(
    database: Database, tmp_path: Path
) -> None:
    double = ListingDouble()
    with serve(double):
        for number in range(3):
            double.put(f"{number}.jpg", ago_s=500 + number)
        side = Side(database, double)
        assert side.probe()
        side.poll()
        watch_id = side.load().id
        parts = side.build()
        duties = Duties(
            database=database,
            transport=side.transport,
            configs=[parts["config"]],
            clock=SystemClock(),
            metrics=Metrics(),
            work_dir=tmp_path,
            server_identity="double",
            stop=threading.Event(),
            watching=lambda _kind, _what: nullcontext(lambda: None),
            watch_ids={"w": watch_id},
            probed={watch_id: int(time.time() * 1000)},
            own_output={"w": SERVERS_OUTPUT},
        )
        assert duties.reconcile("w").n_gone == 0
        double.unit_ms = 1
        with pytest.raises(ProbeError, match="as seconds"):
            duties.reconcile("w")
        with pytest.raises(ProbeError, match="as seconds"):
            duties.poll("w")
        assert "as milliseconds" in str(side.load().problem)
        with database.read() as session:
            found = samples.load_samples_named(session, watch_id=watch_id, file_names=list(double.objects))
        assert {sample.state for sample in found.values()} == {SampleState.WAITING}
