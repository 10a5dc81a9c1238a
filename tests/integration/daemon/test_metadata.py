"""Step metadata over a real platform: sidecars, mappings, commands; what is wrong with one holds no other."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import watcher.jobs.metadata
import watcher.line_process
from tests.integration.daemon.test_pipeline import Pipeline, _put_pictures, pipeline
from watcher.domain.errors import ProtocolError
from watcher.domain.models import BatchRules, BatchState, RunState, SampleState, Step
from watcher.domain.step_rules import MetadataPolicy, MetadataRules, MetadataSource
from watcher.lightly import samples as remote_samples
from watcher.store import control, samples

__all__ = ["pipeline"]

STEPS = (Step.UPLOAD, Step.METADATA)
HEAD = "import json, os, sys, time\n"


@pytest.fixture
def run(pipeline: Pipeline) -> Any:
    """Puts pictures, polls, and runs everything with the rules."""

    def act(names: list[str], **rules: Any) -> None:
        pipeline.scene.change(steps=STEPS, metadata=MetadataRules(**rules))
        _put_pictures(pipeline.scene, names)
        pipeline.poll()
        pipeline.run_all()

    return act


def put(pipeline: Pipeline, name: str, body: bytes) -> None:
    pipeline.scene.put(name, body, modified_s=time.time() - 60)


def remote(pipeline: Pipeline) -> dict[str, Any]:
    transport = pipeline.scene.build_transport()
    found = {}
    for name in pipeline.list_remote():
        sample = remote_samples.fetch_sample_by_file_name(
            transport, dataset_id=pipeline.dataset_id, file_name=name
        )
        assert sample is not None
        found[name] = sample.custom_meta_data
    return found


def result(pipeline: Pipeline, batch_id: int = 1) -> dict[str, Any]:
    (found,) = [run for run in pipeline.load_runs(batch_id) if run.step is Step.METADATA]
    return found.result


def command(folder: Path, program: str, **rules: Any) -> dict[str, Any]:
    path = folder / "metadata.py"
    path.write_text(HEAD + program)
    return {"source": MetadataSource.COMMAND, "command": (sys.executable, str(path)), **rules}


def test_sidecars_are_stored_with_their_pictures_and_are_none_themselves(
    pipeline: Pipeline, run: Any
) -> None:
    put(pipeline, "gate/a.json", b'\xef\xbb\xbf{"camera": "gate", "nested": {"n": [1, 2]}}')
    put(pipeline, "b.json", json.dumps({"name": "Z\u00fcrich"}).encode())
    run(["gate/a.jpg", "b.jpg"], source=MetadataSource.SIDECAR)
    assert remote(pipeline) == {
        "gate/a.jpg": {"camera": "gate", "nested": {"n": [1, 2]}},
        "b.jpg": {"name": "Z\u00fcrich"},
    }
    ledger = pipeline.scene.load_ledger()
    assert {name: row.state for name, row in ledger.items()} == {
        "gate/a.jpg": SampleState.DONE,
        "b.jpg": SampleState.DONE,
    }
    assert result(pipeline) == {"n_stored": 2, "n_skipped": 0, "n_quarantined": 0}


@pytest.mark.parametrize("policy", list(MetadataPolicy))
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "its sidecar bad.json is no JSON"),
        (b"[1]", "its sidecar bad.json holds no JSON object"),
        (b"\xff\xfe", "its sidecar bad.json is no JSON"),
        (b"", "its sidecar bad.json is no JSON"),
        (b'{"a": "' + b"x" * 2000 + b'"}', "its sidecar bad.json is too large"),
        (b"[" * 900, "its sidecar bad.json is no JSON"),
        (None, "its sidecar bad.json was not listed"),
        (b'{"camera": 7}', "its metadata does not fit the schema at camera: 7 is not of type 'string'"),
    ],
)
def test_sidecar_that_is_bad_ends_as_the_policy_says_and_holds_no_other(
    pipeline: Pipeline, run: Any, policy: MetadataPolicy, body: bytes | None, reason: str
) -> None:
    put(pipeline, "good.json", b'{"camera": "gate"}')
    if body is not None:
        put(pipeline, "bad.json", body)
    schema = {"type": "object", "properties": {"camera": {"type": "string"}}}
    run(
        ["good.jpg", "bad.jpg"],
        source=MetadataSource.SIDECAR,
        on_error=policy,
        max_bytes=1000,
        schema=schema,
    )
    ledger = pipeline.scene.load_ledger()
    quarantined = policy is MetadataPolicy.QUARANTINE
    assert ledger["bad.jpg"].state is (SampleState.QUARANTINED if quarantined else SampleState.DONE)
    assert reason in str(ledger["bad.jpg"].reason)
    assert (ledger["good.jpg"].state, ledger["good.jpg"].reason) == (SampleState.DONE, None)
    assert remote(pipeline) == {"good.jpg": {"camera": "gate"}, "bad.jpg": None}
    assert result(pipeline)["n_quarantined" if quarantined else "n_skipped"] == 1
    assert pipeline.load_batch_state() is BatchState.DONE


def test_batch_of_which_policy_takes_every_sample_ends(pipeline: Pipeline, run: Any) -> None:
    run(["a.jpg"], source=MetadataSource.SIDECAR, on_error=MetadataPolicy.QUARANTINE)
    assert pipeline.load_batch_state() is BatchState.DONE
    assert pipeline.scene.load_ledger()["a.jpg"].state is SampleState.QUARANTINED


def test_sidecar_whose_read_url_expired_is_read_by_a_fresh_one(pipeline: Pipeline, run: Any) -> None:
    put(pipeline, "a.json", b'{"n": 1}')
    pipeline.scene.change(steps=STEPS, metadata=MetadataRules(source=MetadataSource.SIDECAR))
    _put_pictures(pipeline.scene, ["a.jpg"])
    pipeline.poll()
    pipeline.run_once()
    from sqlalchemy import update

    from watcher.store.tables import sidecars

    with pipeline.scene.database.write() as session:
        (url,) = session.execute(sidecars.select()).one()[2:]
        session.execute(update(sidecars).values(read_url=url.replace("expires=", "expires=1")))
    pipeline.run_all()
    assert remote(pipeline) == {"a.jpg": {"n": 1}}


def test_mapping_is_filled_from_watch_name_and_time(pipeline: Pipeline, run: Any) -> None:
    run(
        ["gate/a.jpg", "odd.jpg"],
        source=MetadataSource.STATIC,
        values={
            "watch": "{watch}",
            "camera": "{camera}",
            "file": "{folder}|{stem}|{name}",
            "n": 1,
            "at": "{arrived}",
        },
        pattern="^(?P<camera>[^/]+)/",
    )
    found = remote(pipeline)
    arrived = pipeline.scene.load_ledger()["gate/a.jpg"].discovered_ms
    assert found["gate/a.jpg"].pop("at").endswith(f".{arrived % 1000:03d}Z")
    assert found["gate/a.jpg"] == {"watch": "cams", "camera": "gate", "file": "gate/|a|a.jpg", "n": 1}
    assert found["odd.jpg"] is None
    assert "the pattern of the metadata does not fit its file name" in str(
        pipeline.scene.load_ledger()["odd.jpg"].reason
    )


def test_command_gets_names_and_gives_metadata(pipeline: Pipeline, run: Any, tmp_path: Path) -> None:
    program = """
for line in sys.stdin:
    asked = json.loads(line)
    name = asked["file_name"]
    if name == "refused.jpg":
        print(json.dumps({"file_name": name, "error": "unknown camera"}))
    elif name == "number.jpg":
        print(json.dumps({"file_name": name, "metadata": 7}))
    elif name != "silent.jpg":
        print(json.dumps({"file_name": name, "metadata": {"watch": asked["watch"], "known": "arrived" in asked}}))
print("rubbish")
print('{"file_name": "never asked", "metadata": {}}')
"""
    run(["a.jpg", "refused.jpg", "number.jpg", "silent.jpg"], **command(tmp_path, program))
    good = {"watch": "cams", "known": True}
    assert remote(pipeline) == {"a.jpg": good, "refused.jpg": None, "number.jpg": None, "silent.jpg": None}
    reasons = {name: str(row.reason) for name, row in pipeline.scene.load_ledger().items()}
    assert "refused it: unknown camera" in reasons["refused.jpg"]
    assert "answered no JSON object" in reasons["number.jpg"]
    assert "printed no answer for it (2 of its lines answer nothing that was asked)" in reasons["silent.jpg"]


def test_command_that_fails_half_way_is_tried_again_and_then_counts_for_what_it_said(
    pipeline: Pipeline, run: Any, tmp_path: Path
) -> None:
    program = f"""
with open({str(tmp_path / "starts")!r}, "a") as file:
    file.write("x")
asked = json.loads(next(sys.stdin))
print(json.dumps({{"file_name": asked["file_name"], "metadata": {{"n": 1}}}}), flush=True)
print("out of memory, so to say", file=sys.stderr)
sys.exit(3)
"""
    run(["a.jpg", "b.jpg"], **command(tmp_path, program))
    assert (tmp_path / "starts").read_text() == "xxx"
    found = remote(pipeline)
    assert sorted(map(str, found.values())) == ["None", "{'n': 1}"]
    (left,) = [row for row in pipeline.scene.load_ledger().values() if row.reason]
    assert "ended with 3" in str(left.reason)
    assert "out of memory" in str(left.reason)
    assert left.state is SampleState.DONE
    assert pipeline.load_batch_state() is BatchState.DONE


def test_command_that_hangs_holds_no_batch_for_ever(pipeline: Pipeline, run: Any, tmp_path: Path) -> None:
    run(["a.jpg"], **command(tmp_path, "time.sleep(600)", time_limit_s=0.3))
    row = pipeline.scene.load_ledger()["a.jpg"]
    assert row.state is SampleState.DONE
    assert "did not answer within 0.3 s" in str(row.reason)


def test_command_that_never_stops_printing_is_ended_before_it_fills_the_memory(
    pipeline: Pipeline, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher.line_process, "_MOST_BYTES", 1_000_000)
    run(["a.jpg"], **command(tmp_path, "while True: print('rubbish' * 100)", time_limit_s=60.0))
    row = pipeline.scene.load_ledger()["a.jpg"]
    assert row.state is SampleState.DONE
    assert "wrote more than 1000000 bytes" in str(row.reason)


def test_metadata_that_got_through_before_a_crash_is_not_sent_again(
    pipeline: Pipeline, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.scene.change(
        steps=STEPS, metadata=MetadataRules(source=MetadataSource.STATIC, values={"n": "{name}"})
    )
    _put_pictures(pipeline.scene, ["a.jpg", "b.jpg"])
    pipeline.poll()
    pipeline.run_once()
    sent: list[str] = []
    update = remote_samples.update_sample

    def update_then_die(transport: Any, **arguments: Any) -> None:
        sent.append(arguments["request"].custom_meta_data["n"])
        update(transport, **arguments)
        if len(sent) == 1:
            raise RuntimeError("the process dies here, so to say")

    monkeypatch.setattr(watcher.jobs.metadata.remote_samples, "update_sample", update_then_die)
    pipeline.run_all()
    assert sorted(sent) == ["a.jpg", "b.jpg"]
    assert remote(pipeline) == {"a.jpg": {"n": "a.jpg"}, "b.jpg": {"n": "b.jpg"}}


def test_sample_that_the_server_no_longer_has_is_set_aside(pipeline: Pipeline, run: Any) -> None:
    pipeline.scene.change(steps=STEPS, metadata=MetadataRules(source=MetadataSource.STATIC, values={"n": 1}))
    _put_pictures(pipeline.scene, ["a.jpg", "b.jpg"])
    pipeline.poll()
    pipeline.run_once()
    with pipeline.scene.database.write() as session:
        sample = samples.load_sample(session, watch_id=1, file_name="a.jpg")
        assert sample is not None
        samples.record_registered(
            session, sample_id=sample.id, remote_id="f" * 24, size_bytes=1, modified_s=None, now_ms=1
        )
    pipeline.run_all()
    ledger = pipeline.scene.load_ledger()
    assert "its metadata was refused by the server" in str(ledger["a.jpg"].reason)
    assert ledger["b.jpg"].reason is None
    assert all(run.state is RunState.DONE for run in pipeline.load_runs())


def test_schema_with_a_reference_to_an_address_asks_nobody(pipeline: Pipeline, run: Any) -> None:
    schema = {"$ref": "http://127.0.0.1:9/schema.json"}
    run(["a.jpg"], source=MetadataSource.STATIC, values={"n": 1}, schema=schema)
    assert pipeline.load_batch_state() is BatchState.DEAD
    (found,) = [run for run in pipeline.load_runs() if run.step is Step.METADATA]
    assert "the JSON schema of the metadata cannot be followed" in str(found.error)


def test_audit_of_a_watch_with_sidecars_finds_nothing_missing(pipeline: Pipeline, run: Any) -> None:
    from watcher.domain.clock import SystemClock
    from watcher.reconcile import Reconciler

    pipeline.scene.put("a.json", b'{"n": 1}', modified_s=1_600_000_000)
    run(["a.jpg"], source=MetadataSource.SIDECAR)
    scene = pipeline.scene
    report = Reconciler(
        database=scene.database,
        transport=scene.build_transport(),
        config=scene.config,
        watch_id=1,
        clock=SystemClock(),
        metrics=scene.metrics,
        work_dir=pipeline.work,
    ).run()
    assert report.is_clean
    assert report.n_missing == 0


SHARDS_OF_TWO = BatchRules(min_samples=1, max_wait_s=0, max_samples=100, shard_samples=2)


def test_metadata_of_every_shard_arrives_and_is_sent_once(
    pipeline: Pipeline, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{n}.jpg" for n in range(5)]
    for name in names[:-1]:
        put(pipeline, name.replace(".jpg", ".json"), json.dumps({"of": name}).encode())
    sent: list[str] = []
    update = remote_samples.update_sample

    def note(transport: Any, **arguments: Any) -> None:
        sent.append(arguments["request"].custom_meta_data["of"])
        update(transport, **arguments)

    monkeypatch.setattr(watcher.jobs.metadata.remote_samples, "update_sample", note)
    pipeline.scene.change(batch=SHARDS_OF_TWO)
    run(names, source=MetadataSource.SIDECAR)
    made = [run for run in pipeline.load_runs() if run.step is Step.METADATA]
    assert [(run.shard, run.result["n_stored"]) for run in made] == [(1, 2), (2, 2), (3, 0), (0, 4)]
    assert made[-1].result == {"n_stored": 4, "n_skipped": 1, "n_quarantined": 0}
    assert sorted(sent) == names[:-1]
    assert remote(pipeline) == {**{name: {"of": name} for name in names[:-1]}, "4.jpg": None}


def test_dead_shard_of_metadata_holds_its_batch_alone_and_is_replayed_alone(
    pipeline: Pipeline, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.scene.change(batch=SHARDS_OF_TWO)
    update = remote_samples.update_sample
    sent: list[str] = []

    def update_unless_cursed(transport: Any, **arguments: Any) -> None:
        sent.append(arguments["request"].custom_meta_data["n"])
        if sent[-1] == "2.jpg":
            raise ProtocolError("no answer that can be understood")
        update(transport, **arguments)

    mapping = {"source": MetadataSource.STATIC, "values": {"n": "{name}"}}
    with monkeypatch.context() as patch:
        patch.setattr(watcher.jobs.metadata.remote_samples, "update_sample", update_unless_cursed)
        run([f"{n}.jpg" for n in range(4)], **mapping)
        run(["next.jpg"], **mapping)
    first = [run for run in pipeline.load_runs(1) if run.step is Step.METADATA]
    assert [(run.shard, run.state) for run in first] == [(1, RunState.DONE), (2, RunState.DEAD)]
    assert [pipeline.load_batch_state(batch_id) for batch_id in (1, 2)] == [BatchState.DEAD, BatchState.DONE]
    assert remote(pipeline)["next.jpg"] == {"n": "next.jpg"}
    sent.clear()
    monkeypatch.setattr(
        watcher.jobs.metadata.remote_samples,
        "update_sample",
        lambda transport, **arguments: (
            sent.append(arguments["request"].custom_meta_data["n"]),
            update(transport, **arguments),
        ),
    )
    with pipeline.scene.database.write() as session:
        control.replay(session, watch=pipeline.scene.load_watch(), actor="me", now_ms=1)
    pipeline.run_all()
    assert "2.jpg" in sent
    assert not {"0.jpg", "1.jpg", "next.jpg"} & set(sent)
    assert pipeline.load_batch_state(1) is BatchState.DONE
    assert remote(pipeline)["2.jpg"] == {"n": "2.jpg"}
