"""Exit codes of the commands, as docs/control.md tells them: the same beside a daemon and without one."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.builders import NOW_MS, NOW_S, add_batch, add_watch, deliver, load, run_command
from tests.unit.ops.conftest import CONTROL_TOKEN
from watcher.cli import control as commands
from watcher.daemon import Daemon
from watcher.domain.delivery import DeliveryState
from watcher.domain.errors import StoreUnavailableError, WatcherError
from watcher.domain.models import PollState, Via
from watcher.domain.window import Window
from watcher.ops.control import Control
from watcher.store import control, duty_problems, duty_requests, polls, samples, watches
from watcher.store.control import load_audit_log
from watcher.store.duty_problems import Duty
from watcher.store.lock import FileLock

COMMANDS = [
    ("pause gate", 0),
    ("resume gate", 0),
    (f"rewind gate --to {NOW_S - 60}", 0),
    ("replay gate --file broken.jpg", 0),
    ("drop gate --sink gone", 0),
    ("drop gate --delivery gate-000001/gone", 0),
    ("replay gate", 0),
    ("status", 0),
    ("status gate", 0),
    ("dead", 0),
    ("log", 0),
    ("check-store", 0),
    (f"rewind gate --to {NOW_S + 60}", 2),
    (f"rewind roof --to {NOW_S - 60}", 2),
    ("rewind gate --to yesterday", 2),
    ("replay gate --delivery gate-000001/manifest", 2),
    ("replay --delivery gate-000001/manifest", 2),
    ("replay gate --file absent.jpg", 2),
    ("replay --file broken.jpg", 2),
    ("replay gate --file broken.jpg --delivery gate-000001/gone", 2),
    ("drop gate --sink manifest", 2),
    ("drop gate", 2),
    ("drop roof --sink gone", 2),
    ("status shed", 2),
    ("pause shed", 2),
    ("log shed", 2),
    ("why nothing.jpg", 2),
    ("why nothing.jpg --watch shed", 2),
    ("poll shed", 2),
    ("audit shed", 2),
    ("plan shed", 2),
    ("export a-tag --watch shed", 2),
    ("statement export shed", 2),
]


@pytest.fixture(params=["alone", "beside a daemon"])
def command(request, sqlite_ops, tmp_path):
    """Runs commands for two watches, of which one was polled; beside a daemon they are asked for over HTTP."""
    add_watch(sqlite_ops.database, "roof")
    watch = add_watch(sqlite_ops.database, "gate")
    with sqlite_ops.database.write() as session:
        watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S, now_ms=NOW_MS)
    batch = add_batch(sqlite_ops.database, watch, ["picked.jpg", "broken.jpg"])
    deliver(sqlite_ops.database, batch, sink="gone", state=DeliveryState.DEAD, location=None, error="410")
    with sqlite_ops.database.write() as session:
        broken = load(sqlite_ops.database, watch, "broken.jpg")
        samples.record_quarantined(session, sample_id=broken.id, reason="no image", now_ms=NOW_MS)
    environ = {
        "WATCHER_DATA_DIR": str(tmp_path / "own"),
        "WATCHER_STORE__URL": f"sqlite:///{sqlite_ops.database.engine.url.database}",
        "LIGHTLY_TOKEN": "a-token",
        "LIGHTLY_SERVER_LOCATION": "http://127.0.0.1:9",  # nobody listens on the port "discard"
        "WATCHER_WATCHES__DOOR__DATASET": "door",  # never reached its server
        "WATCHER_WATCHES__GATE__DATASET": "gate",
        "WATCHER_WATCHES__ROOF__DATASET": "roof",
    }
    (tmp_path / "own").mkdir()
    with ExitStack() as stack:
        if request.param != "alone":
            Control(url=sqlite_ops.url, token=CONTROL_TOKEN).write(tmp_path / "own")
            lock = FileLock(sqlite_ops.database)
            lock.acquire()
            stack.callback(lock.release)
        yield lambda *arguments: run_command(*arguments, **environ)


def test_exit_code_tells_what_a_person_must_change(command):
    for arguments, code in COMMANDS:
        done = command(*arguments.split())
        assert (arguments, done.exit_code) == (arguments, code), done.output
        assert bool(done.stderr) == bool(code), arguments


def test_poll_of_a_paused_watch_is_refused_with_the_way_out_and_of_all_leaves_it_out(command, sqlite_ops):
    for name in ("door", "gate", "roof"):
        add_watch(sqlite_ops.database, name)
        assert command("pause", name).exit_code == 0
    named = command("poll", "gate")
    assert named.exit_code == 2
    assert "'gate' is paused, so it is not polled: `watcher resume gate` lets it go on" in named.stderr
    everything = command("poll", "--no-jobs")
    assert (everything.exit_code, everything.stderr) == (0, "")
    assert everything.stdout.count("paused, so it is not polled") == 3
    assert sqlite_ops.asked == []


def test_audit_of_all_watches_goes_on_behind_one_that_fails(command, sqlite_ops, monkeypatch):
    asked = []

    def fail(*arguments: object) -> None:
        asked.append(arguments[-1])
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(Daemon, "reconcile", fail)
    monkeypatch.setattr(commands, "_audit_beside_daemon", fail)
    done = command("audit")
    assert (done.exit_code, done.stdout) == (1, "")
    assert asked == ["door", "gate", "roof"]
    assert done.stderr.count("the disk is full") == 3


def test_replay_of_all_watches_goes_on_behind_one_that_never_reached_its_server(command, sqlite_ops):
    done = command("replay")
    assert done.exit_code == 2
    assert "there is no watch 'door'" in done.stderr
    assert "gate: 0 runs, 1 samples and 1 deliveries resubmitted" in done.stdout
    assert "roof: 0 runs, 0 samples and 0 deliveries resubmitted" in done.stdout


def test_change_that_the_daemon_cannot_make_now_is_no_mistake_of_the_callers(sqlite_ops, monkeypatch):
    add_watch(sqlite_ops.database, "gate")

    def fail(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(control, "pause", fail)
    with pytest.raises(WatcherError, match="the disk is full") as caught:
        Control(url=sqlite_ops.url, token=CONTROL_TOKEN).request("gate", "pause")
    assert type(caught.value) is WatcherError  # and so exit code 1, not the 2 of a ConfigError
    with sqlite_ops.database.read() as session:
        assert load_audit_log(session, limit=1) == []


@pytest.mark.parametrize("command", ["beside a daemon"], indirect=True)
@pytest.mark.parametrize(("is_config", "code"), [(False, 1), (True, 2)])
@pytest.mark.parametrize(("verb", "duty"), [("poll", Duty.POLL), ("audit", Duty.AUDIT)])
def test_poll_and_audit_beside_a_daemon_end_with_the_reason_why_it_cannot(
    command, sqlite_ops, monkeypatch, verb, duty, is_config, code
):
    """As of a watch whose dataset is unknown, which never has a row of its own."""
    monkeypatch.setattr(commands, "_POLL_WAIT_S", 20.0)
    monkeypatch.setattr(commands, "_AUDIT_WAIT_S", 20.0)

    def fail(problem: str) -> None:
        with sqlite_ops.database.write() as session:
            duty_problems.record_problem(
                session, watch="door", duty=duty, problem=problem, is_config=is_config, now_ms=NOW_MS
            )

    def lead(*_arguments: object, **_more: object) -> None:
        """The daemon: it takes the request, and cannot do it."""
        with sqlite_ops.database.write() as session:
            number = duty_requests.record_request(session, watch="door", duty=duty, now_ms=NOW_MS).number
        fail("there is no dataset 'door'")
        with sqlite_ops.database.write() as session:
            duty_requests.answer_request(session, watch="door", duty=duty, number=number)

    fail("an old trouble")
    monkeypatch.setattr(Control, "request", lead)
    done = command(verb, "door")
    assert done.exit_code == code
    assert "door: there is no dataset 'door'" in done.stderr
    for arguments in (("status",), ("status", "door")):
        told = command(*arguments).stdout
        assert "has not reached its server yet: there is no dataset 'door'" in told
    assert "has not reached" not in command("status", "gate").stdout


@pytest.mark.parametrize("command", ["beside a daemon"], indirect=True)
def test_poll_beside_a_daemon_that_takes_an_interrupted_one_up_is_that_poll(command, sqlite_ops, monkeypatch):
    with sqlite_ops.database.write() as session:
        watch = watches.load_watch(session, name="gate")
        begun = polls.create_poll(session, watch_id=watch.id, window=Window(0, 9, None), now_ms=NOW_MS)

    def lead(*_arguments: object, **_more: object) -> None:
        """The daemon: it goes on with the listing that broke off."""
        with sqlite_ops.database.write() as session:
            duty_requests.record_request(session, watch="gate", duty=Duty.POLL, now_ms=NOW_MS)
            polls.update_progress(session, poll_id=begun.id, via=Via.WINDOW, cursor=None, n_listed=7, n_new=5)
            polls.finish_poll(session, poll_id=begun.id, state=PollState.DONE, now_ms=NOW_MS)
            duty_requests.answer_request(session, watch="gate", duty=Duty.POLL, number=1)

    monkeypatch.setattr(Control, "request", lead)
    done = command("poll", "gate")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "gate: 7 listed, 5 new, mark 9 (by the daemon)" in done.stdout


@pytest.mark.parametrize("command", ["beside a daemon"], indirect=True)
@pytest.mark.parametrize(("verb", "duty"), [("poll", Duty.POLL), ("audit", Duty.AUDIT)])
def test_request_that_the_leader_lets_be_says_so(command, sqlite_ops, monkeypatch, verb, duty):
    def lead(*_arguments: object, **_more: object) -> None:
        with sqlite_ops.database.write() as session:
            duty_requests.record_request(session, watch="gate", duty=duty, now_ms=NOW_MS)
            duty_requests.answer_request(session, watch="gate", duty=duty, number=1)

    monkeypatch.setattr(Control, "request", lead)
    done = command(verb, "gate")
    assert done.exit_code == 1
    assert "gate: it was let be" in done.stderr
