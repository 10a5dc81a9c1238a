"""Samplings over a real platform: budgets, scores, labelled tags, and somebody else who makes tags at the same time."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import watcher.jobs.sampling as step
from tests.builders import list_threads
from tests.integration.daemon.conftest import Scene
from tests.integration.daemon.test_pipeline import Pipeline
from tests.photographs import build_scenes
from tests.unit.embedders.test_descriptor import encode
from watcher.domain.bitmask import BitMask
from watcher.domain.errors import ScoresError
from watcher.domain.models import BatchRules, BatchState, SamplingMethod, SamplingRules, Step
from watcher.domain.sampling_rules import BudgetPeriod, NoveltyRules, ScoreRules
from watcher.domain.step_rules import MetadataRules, MetadataSource, UploadRules
from watcher.jobs import score_sources
from watcher.lightly import embeddings, scores, tags
from watcher.lightly.wire.samples import SampleCreateRequest
from watcher.lightly.workflows.picking import create_tag_of_names
from watcher.lightly.workflows.register import ensure_initial_or_upsize_tag, ensure_sample
from watcher.store import picks
from watcher.store.tables import batches as batch_table


@pytest.fixture
def pipeline(scene: Scene, tmp_path: Path) -> Pipeline:
    scene.change(
        batch=BatchRules(min_samples=1, max_wait_s=0, max_samples=100),
        sampling=SamplingRules(budget=2),
        upload=UploadRules(workers=2, settle_s=0, settle_attempts=1),
    )
    return Pipeline(scene, tmp_path)


SCENES = build_scenes(12, seed=8)


def put(pipeline: Pipeline, *names: str) -> None:
    """Pictures by name; a digit in the name says which scene it shows."""
    for name in names:
        number = int("".join(filter(str.isdigit, name)))
        pipeline.scene.put(name, encode(SCENES[number]), modified_s=time.time() - 60)
    pipeline.poll()


def run(pipeline: Pipeline, *names: str) -> None:
    put(pipeline, *names)
    pipeline.run_all()


def picked(pipeline: Pipeline, batch_id: int) -> dict[str, dict]:
    with pipeline.scene.database.read() as session:
        return {p.file_name: p.reason for p in picks.load_picks(session, batch_id=batch_id)}


def sampling_run(pipeline: Pipeline, batch_id: int):
    return next(run for run in pipeline.load_runs(batch_id) if run.step is Step.SAMPLING)


def change_sampling(pipeline: Pipeline, **changes) -> None:
    pipeline.scene.change(sampling=SamplingRules(**changes))


def test_near_duplicates_are_kept_out_of_the_sampling(pipeline):
    pipeline.scene.change(novelty=NoveltyRules(exclude_near_duplicates=True))
    change_sampling(pipeline, budget=5)
    run(pipeline, "a0.jpg", "a1.jpg")
    run(pipeline, "b0.jpg", "b2.jpg", "c2.jpg", "b3.jpg")
    assert set(picked(pipeline, 2)) == {"b2.jpg", "b3.jpg"}
    masks = pipeline.list_tags()
    assert {name: len(mask) for name, mask in masks.items()} == {
        "initial-tag": 6,
        "cams-000001": 2,
        "cams-000002-new": 4,
        "cams-000002-candidates": 2,
        "cams-000002": 4,
    }
    assert sampling_run(pipeline, 2).result["n_candidates"] == 2
    run(pipeline, "d2.jpg", "d3.jpg")
    assert "all 2 samples are near-duplicates" in sampling_run(pipeline, 3).error
    assert pipeline.load_batch_state(3) is BatchState.DONE
    assert [r.step for r in pipeline.load_runs(3)] == [Step.UPLOAD, Step.EMBED, Step.SAMPLING]


def test_batch_that_is_not_new_enough_is_done_with_the_reason_and_delivers_nothing(pipeline):
    pipeline.scene.change(novelty=NoveltyRules(min_ratio=0.5))
    run(pipeline, "a0.jpg", "a1.jpg", "a2.jpg")
    run(pipeline, "b0.jpg", "b1.jpg")
    assert "below novelty.min_ratio 0.5" in sampling_run(pipeline, 2).error
    assert pipeline.load_batch_state(2) is BatchState.DONE
    assert {path.name for path in pipeline.selected.iterdir()} == {"cams-000001.jsonl"}
    run(pipeline, "c5.jpg")
    assert set(picked(pipeline, 3)) == {"c5.jpg"}


def test_budget_of_a_day_is_shared_by_its_batches_and_spent_once(pipeline):
    change_sampling(pipeline, budget=3, budget_per=BudgetPeriod.DAY)
    run(pipeline, "a0.jpg", "a1.jpg")
    run(pipeline, "b2.jpg", "b3.jpg")
    run(pipeline, "c4.jpg")
    assert [len(picked(pipeline, batch)) for batch in (1, 2, 3)] == [2, 1, 0]
    assert "the budget of 3 a day is spent" in sampling_run(pipeline, 3).error
    assert pipeline.load_batch_state(3) is BatchState.DONE
    with pipeline.scene.database.write() as session:
        from sqlalchemy import update

        session.execute(update(batch_table).values(created_ms=batch_table.c.created_ms - 86_400_000))
    run(pipeline, "d5.jpg", "d6.jpg", "d7.jpg", "d8.jpg")
    assert len(picked(pipeline, 4)) == 3


def test_sampling_repeated_after_a_kill_does_not_spend_the_budget_again(pipeline, monkeypatch):
    change_sampling(pipeline, budget=3, budget_per=BudgetPeriod.DAY)
    run(pipeline, "a0.jpg")

    class PowerCutError(BaseException):
        pass

    def cut(name: str) -> None:
        if name in {"sampling.ended", "sampling.recorded"} and name not in cuts:
            cuts.add(name)
            raise PowerCutError

    cuts: set[str] = set()
    monkeypatch.setattr(step, "crash_point", cut)
    put(pipeline, *(f"b{number}.jpg" for number in range(1, 8)))
    for _ in range(2):
        with pytest.raises(PowerCutError):
            pipeline.run_all()
        with pipeline.scene.database.write() as session:
            from sqlalchemy import update

            from watcher.store.tables import runs

            session.execute(update(runs).values(lease_until_ms=0))
    pipeline.run_all()
    assert cuts == {"sampling.ended", "sampling.recorded"}
    assert [len(picked(pipeline, batch)) for batch in (1, 2)] == [1, 2]
    assert len(pipeline.list_tags()["cams-000002"]) == 3


def test_share_of_a_batch_is_rounded_and_at_least_one(pipeline):
    change_sampling(pipeline, budget=None, budget_share=0.5)
    run(pipeline, "a0.jpg", "a1.jpg", "a2.jpg")
    run(pipeline, "b3.jpg")
    assert [len(picked(pipeline, batch)) for batch in (1, 2)] == [2, 1]


def test_reasons_tell_the_nearest_of_all_earlier_picks(pipeline):
    change_sampling(pipeline, budget=10)
    run(pipeline, "a0.jpg", "a1.jpg")
    run(pipeline, "b2.jpg")
    run(pipeline, "c1.jpg", "c3.jpg")
    first, third = picked(pipeline, 1), picked(pipeline, 3)
    firsts = list(first.values())
    assert "nearest_earlier_pick" not in firsts[0]
    assert firsts[1]["nearest_earlier_pick"] == next(iter(first))
    assert list(third) == ["c3.jpg", "c1.jpg"], "the one that shows something new comes first"
    assert third["c1.jpg"]["nearest_earlier_pick"] == "a1.jpg"
    assert third["c1.jpg"]["distance_to_nearest_earlier_pick"] == pytest.approx(0, abs=1e-6)
    assert third["c3.jpg"]["distance_to_nearest_earlier_pick"] > 0.1


@pytest.mark.parametrize("source", ["csv", "jsonl", "command"])
@pytest.mark.parametrize("method", [SamplingMethod.ACTIVE_LEARNING, SamplingMethod.CORAL])
def test_scores_decide_and_stand_in_the_reason(pipeline, tmp_path, method, source):
    values = {"a0.jpg": 0.1, "a1.jpg": 0.9, "a2.jpg": 0.001, "a3.jpg": 0.8, "other.jpg": 1.0}
    file = tmp_path / f"scores.{source}"
    if source == "csv":
        file.write_text("score,file_name\n" + "".join(f"{v},{n}\n" for n, v in values.items()))
        rules = ScoreRules(file=str(file))
    else:
        lines = "".join(json.dumps({"file_name": n, "score": v}) + "\n" for n, v in values.items())
        file.write_text(lines)
        rules = ScoreRules(file=str(file))
    if source == "command":
        script = (
            f"import sys, json\nvalues = {values}\n"
            "for line in sys.stdin:\n"
            "    name = json.loads(line)\n"
            "    print(json.dumps({'file_name': name, 'score': values[name]}))\n"
        )
        rules = ScoreRules(command=(sys.executable, "-c", script))
    change_sampling(pipeline, budget=2, method=method, scores=rules)
    run(pipeline, "a0.jpg", "a1.jpg", "a2.jpg", "a3.jpg")
    found = picked(pipeline, 1)
    assert {name: reason["score"] for name, reason in found.items()} == {"a1.jpg": 0.9, "a3.jpg": 0.8}
    assert next(iter(found)) == "a1.jpg"
    transport = pipeline.scene.build_transport()
    initial = tags.fetch_tag_by_name(transport, dataset_id=pipeline.dataset_id, name="initial-tag")
    (kind,) = scores.fetch_score_types(transport, dataset_id=pipeline.dataset_id, tag_id=initial.id)
    assert kind.score_type == "watcher"


def choose(
    method: SamplingMethod,
    vectors: dict[str, np.ndarray],
    scores: dict[str, float],
    before: list[str],
    n: int,
) -> list[str]:
    """The next `n` names as `docs/sampling-methods.md` says, by plain arithmetic."""
    chosen, left = list(before), [name for name in scores if name not in before]
    highest = max(scores[name] for name in left)
    while left and len(chosen) - len(before) < n:

        def weigh(name: str) -> float:
            if method is SamplingMethod.ACTIVE_LEARNING or not chosen:
                return scores[name]
            distance = min(float(np.linalg.norm(vectors[name] - vectors[other])) for other in chosen)
            return max(scores[name] / highest, 0.001) * distance

        best = max(left, key=weigh)
        left.remove(best)
        chosen.append(best)
    return chosen[len(before) :]


@pytest.mark.parametrize("method", [SamplingMethod.ACTIVE_LEARNING, SamplingMethod.CORAL])
def test_scores_in_sidecars_decide_the_picks_of_every_batch_up_to_the_manifest(pipeline, method):
    pipeline.scene.change(
        steps=tuple(Step),
        metadata=MetadataRules(source=MetadataSource.SIDECAR),
        upload=UploadRules(workers=2, settle_s=0, settle_attempts=1),
    )
    change_sampling(
        pipeline, budget=3, method=method, scores=ScoreRules(metadata_key="model.doubt", default=0.05)
    )
    values = [0.9, 0.85, 0.8, 0.31, 0.3, 0.02, 0.5, 0.95, 0.6, 0.44, 0.7]
    # Of scene 11 there is no sidecar; and 1 shows what 0 shows, so that CORAL passes it over though its score is high.
    shown = {f"{number}.jpg": SCENES[0 if number == 1 else number] for number in range(12)}
    scores = {f"{number}.jpg": value for number, value in enumerate(values)} | {"11.jpg": 0.05}
    contents = {name: encode(scene) for name, scene in shown.items()}
    vectors = dict(
        zip(
            contents,
            pipeline.embedder.embed_prepared([pipeline.embedder.prepare(body) for body in contents.values()]),
            strict=True,
        )
    )
    batches = [list(contents)[:6], list(contents)[6:]]
    before: list[str] = []
    for number, names in enumerate(batches, 1):
        for name in names:
            if name != "11.jpg":
                sidecar = json.dumps({"model": {"doubt": scores[name]}}).encode()
                pipeline.scene.put(name.replace(".jpg", ".json"), sidecar, modified_s=time.time() - 60)
            pipeline.scene.put(name, contents[name], modified_s=time.time() - 60)
        pipeline.poll()
        pipeline.run_all()
        expected = choose(method, vectors, {name: scores[name] for name in names}, before, 3)
        manifest = (pipeline.selected / f"cams-{number:06d}.jsonl").read_text().splitlines()
        lines = [json.loads(line) for line in manifest]
        assert [line["file_name"] for line in lines] == expected
        assert {line["file_name"]: line["reason"]["score"] for line in lines} == {
            name: scores[name] for name in expected
        }
        before += expected
    assert ("1.jpg" in before) is (method is SamplingMethod.ACTIVE_LEARNING)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('{"file_name": "a0.jpg", "score": 0.5}\n', "no score for 1 of 2 samples of cams-000001: 'a1.jpg'"),
        ('{"file_name": "a0.jpg", "score": NaN}\n', "line 1 is not of the form"),
        ("rubbish\n", "line 1 is not of the form"),
        (
            b'{"file_name": "a0.jpg", "score": 0.5}\n{"file_name": "\xe4.jpg", "score": 1}\n',
            "line 2 is not of the",
        ),
        ("[" * 3000, "line 1 is not of the form"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_scores_that_are_missing_or_cannot_be_read_are_named_and_waited_for(pipeline, tmp_path, lines, said):
    file = tmp_path / "scores.jsonl"
    if lines is not None:
        file.write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    change_sampling(pipeline, budget=1, method=SamplingMethod.CORAL, scores=ScoreRules(file=str(file)))
    put(pipeline, "a0.jpg", "a1.jpg")
    for _ in range(3):
        pipeline.run_once()
    waiting = sampling_run(pipeline, 1)
    assert said in waiting.error
    assert waiting.state.value == "ready"
    file.write_text('{"file_name": "a0.jpg", "score": 0.5}\n{"file_name": "a1.jpg", "score": 1}\n')
    pipeline.run_all()
    assert set(picked(pipeline, 1)) == {"a1.jpg"}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; sys.exit('no model')", "ended with 1: no model"),
        ("print('rubbish')", "line 1 is not of the form"),
        (
            r"import sys; sys.stdout.buffer.write(b'\xff\xfe')",
            f"the command {sys.executable}: line 1 is not of the form",
        ),
        ("import time; time.sleep(60)", "took longer than 0.5 seconds"),
        ("while True: print('x' * 100000)", "printed more than"),
    ],
)
def test_command_that_fails_hangs_or_prints_rubbish_is_told(pipeline, script, said):
    rules = ScoreRules(command=(sys.executable, "-c", script), time_limit_s=0.5 if "sleep" in script else 60)
    change_sampling(pipeline, budget=1, method=SamplingMethod.ACTIVE_LEARNING, scores=rules)
    put(pipeline, "a0.jpg")
    for _ in range(3):
        pipeline.run_once()
    assert said in sampling_run(pipeline, 1).error
    assert not list(pipeline.work.iterdir())


def test_scores_whose_reading_fails_leave_no_thread(pipeline, monkeypatch):
    kept = []

    def fail(*_arguments: object, **_more: object) -> float:
        kept.append(ScoresError("the reader failed"))
        raise kept[0]

    monkeypatch.setattr(
        score_sources.remote_samples,
        "fetch_sample",
        lambda *_arguments, **_more: SimpleNamespace(custom_meta_data={"doubt": 0.5}),
    )
    monkeypatch.setattr(score_sources, "_read_score", fail)
    rules = ScoreRules(metadata_key="doubt")
    change_sampling(pipeline, budget=1, method=SamplingMethod.CORAL, scores=rules)
    put(pipeline, "a0.jpg", "a1.jpg")
    for _ in range(3):
        pipeline.run_once()
    assert "the reader failed" in sampling_run(pipeline, 1).error
    # The traceback is kept, and with it whatever a generator would hold.
    assert kept[0].__traceback__ is not None
    assert list_threads("scores") == []


def test_samples_of_labelled_tags_count_as_picked(pipeline):
    change_sampling(pipeline, budget=2, preselected_tags=("labelled", "not there yet"))
    run(pipeline, "a0.jpg", "a1.jpg", "a2.jpg")
    transport = pipeline.scene.build_transport()
    rest = next(name for name in ("a0.jpg", "a1.jpg", "a2.jpg") if name not in picked(pipeline, 1))
    create_tag_of_names(transport, dataset_id=pipeline.dataset_id, name="labelled", file_names=[rest])
    digit = rest[1]
    run(pipeline, f"b{digit}.jpg", "b5.jpg", "b6.jpg")
    masks = pipeline.list_tags()
    assert len(masks["cams-000002-known"]) == 3
    assert not (masks["labelled"] | masks["cams-000001"]) - masks["cams-000002"]
    assert set(picked(pipeline, 2)) == {"b5.jpg", "b6.jpg"}
    assert sampling_run(pipeline, 2).result["absent_tags"] == ["not there yet"]
    assert sampling_run(pipeline, 2).result["n_preselected"] == 3


def test_name_taken_by_somebody_else_gets_a_number(pipeline):
    put(pipeline, "a0.jpg", "a1.jpg", "a2.jpg")
    pipeline.run_once()
    pipeline.run_once()
    transport = pipeline.scene.build_transport()
    theirs = ensure_foreign(pipeline, "theirs.jpg")
    for name, others in (("cams-000001", [theirs]), ("cams-000001-2", [theirs, "a0.jpg"])):
        create_tag_of_names(transport, dataset_id=pipeline.dataset_id, name=name, file_names=others)
    pipeline.run_all()
    assert pipeline.load_batch_state(1) is BatchState.DONE
    masks = pipeline.list_tags()
    assert len(masks["cams-000001"]) == 1
    assert sampling_run(pipeline, 1).result["tag"] == "cams-000001-3"
    assert len(masks["cams-000001-3"]) == 2
    assert len(picked(pipeline, 1)) == 2


def ensure_foreign(pipeline: Pipeline, name: str) -> str:
    """A sample that somebody else registers, and the tags widened over it."""
    transport = pipeline.scene.build_transport()
    ensure_sample(
        transport,
        dataset_id=pipeline.dataset_id,
        request=SampleCreateRequest(file_name=name),
        look_up_first=False,
        with_write_urls=False,
    )
    ensure_initial_or_upsize_tag(
        transport, dataset_id=pipeline.dataset_id, img_type="full", upsize_tag_name=f"for-{name}"
    )
    return name


def test_tag_of_the_batchs_name_that_holds_only_its_samples_counts_as_the_choice(pipeline):
    put(pipeline, "a0.jpg", "a1.jpg", "a2.jpg")
    pipeline.run_once()
    pipeline.run_once()
    transport = pipeline.scene.build_transport()
    create_tag_of_names(transport, dataset_id=pipeline.dataset_id, name="cams-000001", file_names=["a2.jpg"])
    pipeline.run_all()
    assert set(picked(pipeline, 1)) == {"a2.jpg"}


def test_last_sampling_tag_deleted_by_somebody_is_made_up_from_the_store(pipeline):
    run(pipeline, "a0.jpg", "a1.jpg", "a2.jpg")
    transport = pipeline.scene.build_transport()
    tag = tags.fetch_tag_by_name(transport, dataset_id=pipeline.dataset_id, name="cams-000001")
    tags.delete_tag(transport, dataset_id=pipeline.dataset_id, tag_id=tag.id)
    again = [f"b{name[1]}.jpg" for name in picked(pipeline, 1)]
    run(pipeline, *again, "b6.jpg", "b7.jpg")
    assert set(picked(pipeline, 2)) == {"b6.jpg", "b7.jpg"}, "what was picked before still counts"
    masks = pipeline.list_tags()
    assert len(masks["cams-000002-known"]) == 2
    assert masks["cams-000002-known"] == BitMask.from_hex(tag.bit_mask_data)


def test_query_tag_deleted_by_somebody_is_made_anew(pipeline):
    run(pipeline, "a0.jpg")
    put(pipeline, "b1.jpg", "b2.jpg", "b3.jpg")
    pipeline.run_once()
    pipeline.run_once()
    transport = pipeline.scene.build_transport()
    tag = tags.fetch_tag_by_name(transport, dataset_id=pipeline.dataset_id, name="cams-000002-new")
    tags.delete_tag(transport, dataset_id=pipeline.dataset_id, tag_id=tag.id)
    pipeline.run_all()
    assert pipeline.load_batch_state(2) is BatchState.DONE
    assert len(picked(pipeline, 2)) == 2
    assert len(pipeline.list_tags()["cams-000002-candidates"]) == 3


def test_dataset_widened_by_somebody_gets_a_new_embedding_and_only_ours_are_picked(pipeline):
    change_sampling(pipeline, budget=10)
    put(pipeline, "a0.jpg", "a1.jpg")
    pipeline.run_once()
    pipeline.run_once()
    ensure_foreign(pipeline, "theirs.jpg")
    pipeline.run_all()
    assert pipeline.load_batch_state(1) is BatchState.DONE
    assert set(picked(pipeline, 1)) == {"a0.jpg", "a1.jpg"}
    assert len(pipeline.list_tags()["cams-000001"]) == 2
    (found,) = embeddings.fetch_embeddings(pipeline.scene.build_transport(), dataset_id=pipeline.dataset_id)
    assert found.name == "cams-000001"


def test_foreign_samples_below_the_initial_tag_of_the_first_batch_are_no_candidates(pipeline):
    change_sampling(pipeline, budget=10)
    pipeline.scene.build_poller()
    ensure_sample(
        pipeline.scene.build_transport(),
        dataset_id=pipeline.dataset_id,
        request=SampleCreateRequest(file_name="theirs.jpg"),
        look_up_first=False,
        with_write_urls=False,
    )
    run(pipeline, "a0.jpg", "a1.jpg")
    assert set(picked(pipeline, 1)) == {"a0.jpg", "a1.jpg"}
    assert {name: len(mask) for name, mask in pipeline.list_tags().items()} == {
        "initial-tag": 3,
        "cams-000001-candidates": 2,
        "cams-000001": 2,
    }
