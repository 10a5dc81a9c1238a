"""What people ask the leader for: a poll or comparison that begins afterwards answers it, however it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.integration.daemon.conftest import Scene
from watcher.domain.clock import SystemClock
from watcher.domain.errors import WatcherError
from watcher.duties import Duties
from watcher.store import duty_requests, watches
from watcher.store.duty_problems import Duty


class Office:
    """The leader's duties; `meanwhile` is called in the midst of each."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.meanwhile: Callable[[], None] = lambda: None
        self.begun: list[str] = []
        self.duties = Duties(
            database=scene.database,
            transport=scene.build_transport(),
            configs=[scene.config],
            clock=SystemClock(),
            metrics=scene.metrics,
            work_dir=scene.folder.parent,
            server_identity="test",
            stop=scene.stop,
            watching=self._watching,
        )

    @contextmanager
    def _watching(self, _kind: str, _watch: str) -> Iterator[Callable[[], None]]:
        self.meanwhile()
        yield lambda: None

    def ask(self, duty: Duty = Duty.POLL, *, watch: str = "cams") -> None:
        with self.scene.database.write() as session:
            duty_requests.record_request(session, watch=watch, duty=duty, now_ms=1)

    def look(self) -> list[str]:
        """What is begun by a look just now."""
        self.begun.clear()
        self.duties.take_up_requests(
            poll=lambda name: self.begun.append(f"poll {name}"),
            audit=lambda name: self.begun.append(f"audit {name}"),
        )
        return self.begun[:]


@pytest.fixture
def office(scene: Scene) -> Office:
    return Office(scene)


def test_requests_are_begun_until_they_are_done(office):
    assert office.look() == []
    office.ask()
    office.ask(Duty.AUDIT)
    assert office.look() == office.look() == ["audit cams", "poll cams"]
    office.duties.poll("cams")
    assert office.look() == ["audit cams"]
    office.duties.reconcile("cams")
    assert office.look() == []


def test_request_amid_a_poll_wants_another_one_that_begins_when_this_one_ended(office):
    looks = []

    def ask_and_look() -> None:
        office.ask()
        looks.append(office.look())

    office.ask()
    office.meanwhile = ask_and_look
    office.duties.poll("cams")
    assert looks == [[]]
    office.meanwhile = lambda: None
    assert office.look() == ["poll cams"]
    office.duties.poll("cams")
    assert office.look() == []


def test_failure_answers_too_and_leaves_nothing_under_way(office):
    def fail() -> None:
        raise WatcherError("no answer")

    office.ask()
    office.meanwhile = fail
    with suppress(WatcherError):
        office.duties.poll("cams")
    assert (office.look(), office.duties.under_way) == ([], set())


def test_poll_of_a_watch_that_was_paused_or_left_the_configuration_is_let_be(office):
    office.duties.poll("cams")
    office.ask()
    office.ask(Duty.AUDIT)
    office.ask(watch="gone")
    with office.scene.database.write() as session:
        watch = watches.load_watch(session, name="cams")
        watches.update_pause(session, watch_id=watch.id, paused_ms=1)
    assert office.look() == office.look() == ["audit cams"]
    with office.scene.database.write() as session:
        watches.update_pause(session, watch_id=watch.id, paused_ms=None)
    assert office.look() == ["audit cams"]
    office.ask(watch="gone")
    office.duties.forget_idle_polls()
    with office.scene.database.read() as session:
        assert duty_requests.load_request(session, watch="gone", duty=Duty.POLL) is None
        assert duty_requests.load_request(session, watch="cams", duty=Duty.POLL) is not None


def test_comparison_that_somebody_asked_for_is_not_begun_beside_itself_by_schedule(office):
    office.duties.poll("cams")
    again = []
    office.meanwhile = lambda: (again.append(1), office.duties.reconcile_due())
    office.duties.reconcile("cams")
    assert again == [1]
