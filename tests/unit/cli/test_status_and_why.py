"""`watcher status` and `watcher why`: read from the store, beside a daemon or without one."""

from __future__ import annotations

import json

import pytest

from tests.builders import NOW_MS, NOW_S, add_batch, add_run, add_watch, claim, deliver, list_names, load
from watcher.domain.delivery import DeliveryState
from watcher.domain.models import BatchState, RunState, Step, Via
from watcher.store import batches, control, picks, runs, samples, watches

SIGNATURE = "s1gnature"


def end(database, run, state=RunState.DONE, **values):
    facts = {"result": {}, "error": None, "now_ms": NOW_MS + 2000, **values}
    with database.write() as session:
        assert runs.end_run(session, run_id=run.id, owner="me", state=state, **facts)


@pytest.fixture
def picked(database):
    """A watch with a delivered pick, a quarantined sample and one that waits."""
    watch = add_watch(database)
    batch = add_batch(database, watch, ["cam/a [1].jpg", "broken.jpg"])
    end(database, claim(database), result={"uploaded": 1})
    add_run(database, batch, Step.SAMPLING, now_ms=NOW_MS)
    end(database, claim(database), now_ms=NOW_MS + 5000)
    with database.write() as session:
        a, broken = (load(database, watch, name) for name in ("cam/a [1].jpg", "broken.jpg"))
        samples.record_registered(
            session, sample_id=a.id, remote_id="remote1", size_bytes=5, modified_s=NOW_S - 30, now_ms=NOW_MS
        )
        samples.record_quarantined(session, sample_id=broken.id, reason="no image", now_ms=NOW_MS + 1500)
        picks.replace_picks(session, batch_id=batch.id, rows=[(a.id, 1, {"distance": 0.5})])
        batches.record_sampling_tag(session, batch_id=batch.id, tag_id="t", tag_name="gate-000001")
        samples.finish_batch_samples(session, batch_id=batch.id, now_ms=NOW_MS + 9000)
        batches.finish_batch(session, batch_id=batch.id, state=BatchState.DONE, now_ms=NOW_MS + 9000)
        watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S, now_ms=NOW_MS)
    deliver(database, batch, now_ms=NOW_MS + 9000)
    list_names(database, watch, ["late.jpg"], via=Via.OVERLAP)
    return watch


def test_status_without_a_store_says_how_to_get_one(command, data_dir):
    done = command("status")
    assert done.exit_code == 2
    assert f"there is no store at {data_dir / 'watcher.sqlite'} yet: start `watcher run`" in done.stderr


def test_status_of_an_empty_store_says_that_nothing_was_reached(stored_command):
    done = stored_command("status")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "No watch has reached its server yet" in done.stdout


def test_control_characters_in_a_name_are_shown_and_not_sent_to_the_terminal(stored_command, database):
    watch = add_watch(database)
    name = "a\x1b]0;owned\x9b31m\u202egpj.exe"
    add_batch(database, watch, [name])
    sample = load(database, watch, name)
    with database.write() as session:
        samples.record_quarantined(session, sample_id=sample.id, reason="no\x1bimage", now_ms=NOW_MS)
    for arguments in (("status",), ("dead",), ("why", name)):
        shown = stored_command(*arguments).stdout
        assert r"a\x1b]0;owned\x9b31m\u202egpj.exe" in shown, arguments
        assert not set(shown) & {"\x1b", "\x9b", "\u202e"}, arguments


def test_status_shows_marks_samples_batches_and_troubles(stored_command, picked):
    done = stored_command("status")
    assert done.exit_code == 0
    for part in (
        "gate",
        "2023-11-14 22:13:20 UTC",
        "1 waiting, 0 processing, 1 done, 1 quarantined, 0 gone",
        "gate-000001",
        "upload:done",
        "quarantined broken.jpg: no image",
        "manifest: out.jsonl",
    ):
        assert part in done.stdout
    assert "more set aside" not in done.stdout
    assert SIGNATURE not in done.output


def test_status_of_one_watch_tells_how_many_more_were_set_aside(stored_command, database):
    watch = add_watch(database)
    add_watch(database, "roof")
    names = [f"{number:02d}.jpg" for number in range(13)]
    list_names(database, watch, names)
    with database.write() as session:
        for name in names:
            record = samples.record_gone if name == "00.jpg" else samples.record_quarantined
            record(session, sample_id=load(database, watch, name).id, reason="why", now_ms=NOW_MS)
    shown = stored_command("status", "gate").stdout
    assert shown.count(".jpg: why") == 10
    assert "and 3 more set aside; `watcher dead` lists them" in shown
    assert "roof" not in shown
    (told,) = json.loads(stored_command("status", "gate", "--json").stdout)["watches"]
    assert (len(told["troubled"]), told["n_more_troubled"]) == (10, 3)
    refused = stored_command("status", "shed")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "watcher: there is no watch 'shed'; known are: gate, roof\n",
    )


def test_status_tells_nothing_of_a_dropped_delivery(stored_command, database):
    watch = add_watch(database)
    batch = add_batch(database, watch, ["a"])
    deliver(database, batch, sink="retired", state=DeliveryState.DEAD, location=None, error="410")
    assert "gate-000001/retired dead, attempt 1: 410" in stored_command("status").stdout
    assert "delivery gate-000001/retired" in stored_command("dead").stdout
    dropped = stored_command("drop", "gate", "--sink", "retired")
    assert dropped.stdout == "gate: 1 dead deliveries dropped\n"
    assert "retired" not in stored_command("status").stdout
    assert "retired" not in stored_command("dead").stdout


def test_list_of_what_was_given_up_says_where_it_ends(stored_command, database, monkeypatch):
    watch = add_watch(database)
    list_names(database, watch, ["a", "b"])
    with database.write() as session:
        for name in "ab":
            samples.record_quarantined(
                session, sample_id=load(database, watch, name).id, reason="why", now_ms=NOW_MS
            )
    assert stored_command("dead").stderr == ""
    monkeypatch.setattr("watcher.cli.control._MOST_DEAD", 1)
    assert "Only the newest 1 of a kind are listed" in stored_command("dead").stderr


def test_status_as_json_is_one_object_with_every_state(stored_command, picked):
    done = stored_command("status", "--json")
    (watch,) = json.loads(done.stdout)["watches"]
    assert watch["name"] == "gate"
    assert watch["samples"] == {"waiting": 1, "processing": 0, "done": 1, "quarantined": 1, "gone": 0}
    assert SIGNATURE not in done.output


def test_status_of_a_store_that_is_down_is_told_without_its_password(command, free_port):
    done = command("status", WATCHER_STORE__URL=f"postgresql://me:5ecr3t@127.0.0.1:{free_port}/watcher")
    assert done.exit_code == 1
    assert "is unavailable" in done.stderr
    assert "5ecr3t" not in done.output


def test_status_of_another_kind_of_store_is_refused_without_its_password(command):
    done = command("status", WATCHER_STORE__URL="mysql://me:5ecr3t@db/watcher")
    assert done.exit_code == 2
    assert "known are sqlite:///FILE and postgresql://" in done.stderr
    assert "5ecr3t" not in done.output


def test_why_tells_the_whole_life_of_a_picked_file(stored_command, picked):
    done = stored_command("why", "cam/a [1].jpg", "--json")
    assert done.exit_code == 0
    (life,) = json.loads(done.stdout)
    assert (life["watch"], life["state"], life["remote_id"]) == ("gate", "done", "remote1")
    assert life["explanation"] == "it went through all steps"
    events = {event["what"]: event["facts"] for event in life["events"]}
    assert list(events) == [
        "listed for the first time",
        "put into a batch",
        "step upload",
        "step sampling",
        "picked",
        "delivered",
    ]
    assert events["listed for the first time"]["via"] == "window"
    assert events["listed for the first time"]["window_from"] == "2023-11-14T22:12:20+00:00"
    assert events["step upload"] == {"state": "done", "attempts": 1, "uploaded": 1}
    assert events["picked"] == {"rank": 1, "tag": "gate-000001", "distance": 0.5}
    assert events["delivered"] == {
        "sink": "manifest",
        "kind": "manifest",
        "state": "done",
        "location": "out.jsonl",
    }
    assert SIGNATURE not in done.output


def test_why_for_people_shows_names_with_brackets_as_they_are(stored_command, picked):
    done = stored_command("why", "a [1].jpg")
    assert done.exit_code == 0
    assert "cam/a [1].jpg  (watch gate)" in done.stdout
    assert "done: it went through all steps" in done.stdout


def test_why_of_a_file_in_quarantine_tells_the_reason(stored_command, picked):
    done = stored_command("why", "broken.jpg")
    assert "quarantined: it cannot be processed: no image" in done.stdout


def test_why_of_a_late_file_tells_the_overlap_it_was_found_in(stored_command, picked):
    (life,) = json.loads(stored_command("why", "late.jpg", "--json").stdout)
    assert life["explanation"] == "it is in the ledger and waits for the next batch"
    facts = life["events"][0]["facts"]
    assert facts["via"] == "overlap"
    assert (facts["window_from"], facts["window_to"]) == (
        "2023-11-14T22:02:20+00:00",
        "2023-11-14T22:12:19+00:00",
    )


def test_why_of_a_file_whose_batch_gave_up_says_so(stored_command, database):
    watch = add_watch(database)
    batch = add_batch(database, watch, ["a"])
    end(database, claim(database), state=RunState.DEAD, error="the server answered 400")
    with database.write() as session:
        batches.finish_batch(session, batch_id=batch.id, state=BatchState.DEAD, now_ms=NOW_MS)
    (life,) = json.loads(stored_command("why", "a", "--json").stdout)
    assert life["explanation"] == "its batch gate-000001 gave up: see the step that is dead"
    assert life["events"][-1]["facts"]["error"] == "the server answered 400"


def test_why_of_an_unknown_file_says_what_to_check(stored_command, picked):
    done = stored_command("why", "nothing.jpg")
    assert done.exit_code == 2
    assert "no watch has ever listed 'nothing.jpg'" in done.stderr


def test_why_in_a_watch_that_there_is_not_names_those_there_are(stored_command, picked):
    done = stored_command("why", "broken.jpg", "--watch", "roof")
    assert done.exit_code == 2
    assert "there is no watch 'roof'; known are: gate" in done.stderr


def test_why_after_a_rewind_tells_that_the_file_is_listed_again_and_not_done_twice(
    stored_command, database, picked
):
    for to_s in (NOW_S - 100, NOW_S - 20):  # the second one stays behind the file, which is of NOW_S - 30
        with database.write() as session:
            watch = watches.load_watch(session, name="gate")
            watches.update_mark(session, watch_id=watch.id, mark_s=NOW_S, now_ms=NOW_MS)
            control.rewind(
                session,
                watch=watches.load_watch(session, name="gate"),
                to_s=to_s,
                actor="ann",
                now_ms=NOW_MS + 1000 * (to_s - NOW_S + 200),
            )
    (life,) = json.loads(stored_command("why", "cam/a [1].jpg", "--json").stdout)
    told = [event for event in life["events"] if "mark set back" in event["what"]]
    assert [event["facts"]["by"] for event in told] == ["ann"]
    assert life["state"] == "done"
    assert life["events"][-1] == told[0]


def test_why_of_a_file_that_waits_in_a_paused_watch_tells_the_way_out(stored_command, database, picked):
    with database.write() as session:
        control.pause(session, watch=watches.load_watch(session, name="gate"), actor="ann", now_ms=NOW_MS)
    waits = stored_command("why", "late.jpg")
    assert waits.exit_code == 0
    assert "the watch is paused since 2023-11-14T22:13:20+00:00: `watcher resume gate`" in waits.stdout
    assert "paused" not in stored_command("why", "broken.jpg").stdout
