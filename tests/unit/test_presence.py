"""The fingerprint by which processes see whether they are configured alike."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from tests.builders import ManualClock, build_config
from tests.stores import migrated_file
from tests.waiting import wait_for
from watcher.database.engine import Database, build_database
from watcher.domain.models import BatchRules, WatchConfig
from watcher.ops.health import Heartbeats
from watcher.presence import Presence, compute_digest

__all__ = ["migrated_file"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewerRules(BatchRules):
    """The rules of a version that has one more setting."""

    most_hours: int = 24


def newer(config: WatchConfig, **changes: object) -> WatchConfig:
    return dataclasses.replace(config, batch=NewerRules(**dataclasses.asdict(config.batch), **changes))


def test_digest_changes_with_a_setting_at_any_depth():
    config = build_config()
    assert compute_digest(config) == compute_digest(build_config())
    others = [
        dataclasses.replace(config, interval_s=config.interval_s + 1),
        dataclasses.replace(config, batch=dataclasses.replace(config.batch, max_open=7)),
        dataclasses.replace(config, steps=config.steps[:1]),
        build_config("other"),
    ]
    digests = {compute_digest(one) for one in (config, *others)}
    assert len(digests) == 5


def test_digest_is_the_same_in_a_version_with_one_more_setting_until_somebody_sets_it():
    config = build_config()
    assert compute_digest(newer(config)) == compute_digest(config)
    assert compute_digest(newer(config, most_hours=12)) != compute_digest(config)


class FreezingDatabase(Database):
    """A store of which a part, or all, can be made to hang."""

    def __init__(self, whole: Database) -> None:
        super().__init__(whole.engine, name=whole.name)
        self.reads, self.writes = threading.Event(), threading.Event()
        self.thaw()

    def freeze(self) -> None:
        self.reads.clear()
        self.writes.clear()

    def thaw(self) -> None:
        self.reads.set()
        self.writes.set()

    @contextmanager
    def read(self) -> Iterator[object]:
        self.reads.wait(30)
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[object]:
        self.writes.wait(30)
        with super().write() as session:
            yield session


@dataclasses.dataclass
class Office:
    """A presence over a store that can hang, and the loops of its process."""

    store: FreezingDatabase
    clock: ManualClock
    heartbeats: Heartbeats
    presence: Presence
    stop: threading.Event


@pytest.fixture
def office(migrated_file, tmp_path) -> Iterator[Office]:
    shutil.copyfile(migrated_file, tmp_path / "store.sqlite")
    store = FreezingDatabase(build_database(f"sqlite:///{tmp_path / 'store.sqlite'}"))
    clock, stop = ManualClock(), threading.Event()
    heartbeats = Heartbeats(clock)
    presence = Presence(
        store, kind="replica", configs=[build_config()], clock=clock, stop=stop, heartbeats=heartbeats,
        limit_s=0.5,
    )  # fmt: skip
    made = Office(store, clock, heartbeats, presence, stop)
    yield made
    stop.set()
    store.thaw()
    presence.join(timeout_s=10)
    store.close()


def wait_for_rounds(office: Office) -> None:
    """Lets the loop of the presence go round a few times."""
    beats = []
    office.heartbeats.beat, kept = lambda loop: beats.append(kept(loop)), office.heartbeats.beat
    wait_for(lambda: len(beats) >= 3, what="the presence goes round")
    del office.heartbeats.beat


def test_loops_that_wait_for_a_store_that_hangs_are_not_stalled(office):
    office.presence.start()
    assert office.presence.problem is None
    office.heartbeats.expect("standby", within_s=60)
    office.store.freeze()
    for _ in range(2):
        office.clock.advance(61)
        assert office.heartbeats.find_stalled() == {"standby": 61}
        wait_for(lambda: office.heartbeats.find_stalled() == {}, what="the loop is pardoned")
    office.store.thaw()
    wait_for_rounds(office)
    office.clock.advance(61)
    wait_for_rounds(office)
    assert office.heartbeats.find_stalled() == {"standby": 61}


def test_loop_that_hangs_while_the_store_answers_is_stalled_though_a_sign_of_life_waits(office):
    office.presence.start()
    office.heartbeats.expect("standby", within_s=60)
    office.store.writes.clear()  # somebody holds the row
    office.clock.advance(61)
    wait_for_rounds(office)
    assert office.heartbeats.find_stalled() == {"standby": 61}


def test_presence_starts_and_ends_in_time_while_the_store_hangs(office):
    office.store.freeze()
    begun_s = time.monotonic()
    office.presence.start()
    assert office.presence.problem == "the store was not asked yet"
    office.stop.set()
    office.presence.join(timeout_s=2)
    assert time.monotonic() - begun_s < 20  # the store hangs for 30
    assert not [thread for thread in threading.enumerate() if thread.name == "presence"]


def test_process_that_ended_is_off_the_list(office):
    office.presence.start()
    with office.store.read() as session:
        assert session.execute(text("SELECT count(*) FROM processes")).scalar_one() == 1
    office.stop.set()
    office.presence.join(timeout_s=10)
    with office.store.read() as session:
        assert session.execute(text("SELECT count(*) FROM processes")).scalar_one() == 0
