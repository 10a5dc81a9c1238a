"""Samples without a usable score or vector: they leave the candidates with their reason, and hold nobody else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

import watcher.jobs.embed
from tests.integration.daemon.test_leftovers import replay
from tests.integration.daemon.test_novelty import collect
from tests.integration.daemon.test_pipeline import Pipeline
from tests.integration.daemon.test_sampling import change_sampling, picked, pipeline, put, run, sampling_run
from watcher.domain.models import BatchState, RunState, SamplingMethod, Step
from watcher.domain.sampling_rules import ScoreRules
from watcher.embedders.descriptor import DescriptorEmbedder
from watcher.jobs import score_sources
from watcher.ops.life import load_lives
from watcher.ops.overview import load_overview
from watcher.store.tables import runs as run_table

__all__ = ["pipeline"]


def tell(pipeline: Pipeline, name: str, what: str) -> list[Any]:
    (life,) = load_lives(pipeline.scene.database, file_name=name)
    return [event.facts["reason"] for event in life.events if event.what == what]


def score_by(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, source: str, values: dict, root, **more
) -> None:
    """Lets the values be the scores; metadata are answered as the server would."""
    rules = {
        "csv": {"file": str(root / "scores.csv")},
        "jsonl": {"file": str(root / "scores.jsonl")},
        "metadata": {"metadata_key": "model.doubt"},
    }[source]
    rows = [f"{name},{value}\n" for name, value in values.items()]
    (root / "scores.csv").write_text("".join(["file_name,score\n", *rows]))
    lines = [json.dumps({"file_name": name, "score": value}) + "\n" for name, value in values.items()]
    (root / "scores.jsonl").write_text("".join(lines))
    by_id = {}

    def fetch(*_arguments: object, sample_id: str, **_more: object) -> SimpleNamespace:
        if not by_id:
            by_id.update({row.remote_id: name for name, row in pipeline.scene.load_ledger().items()})
        return SimpleNamespace(custom_meta_data={"model": {"doubt": values[by_id[sample_id]]}})

    monkeypatch.setattr(score_sources.remote_samples, "fetch_sample", fetch)
    change_sampling(
        pipeline, budget=1, method=SamplingMethod.ACTIVE_LEARNING, scores=ScoreRules(**rules, **more)
    )


BAD = [
    ("csv", ["high", ""]),
    ("jsonl", [None, 1.5, True, [1], 10**400]),
    ("metadata", ["n/a", -0.1, None]),
]


def with_good_ones(bad: Sequence[Any]) -> dict[str, Any]:
    return {"a0.jpg": 0.3, **{f"b{n}.jpg": value for n, value in enumerate(bad)}, "c0.jpg": 0.9}


@pytest.mark.parametrize(("source", "bad"), BAD, ids=lambda given: given if isinstance(given, str) else "")
def test_bad_score_without_a_default_leaves_its_sample_out_and_no_other(
    pipeline, monkeypatch, tmp_path, source, bad
):
    values = with_good_ones(bad)
    score_by(pipeline, monkeypatch, source, values, tmp_path)
    run(pipeline, *values)
    ended = sampling_run(pipeline, 1)
    assert (ended.attempt, ended.state) == (1, RunState.DONE), ended.error
    assert set(picked(pipeline, 1)) == {"c0.jpg"}
    assert (ended.result["n_without_score"], ended.result["n_candidates"]) == (len(bad), 2)
    assert len(pipeline.list_tags()["cams-000001-candidates"]) == 2
    for number in range(len(bad)):
        (reason,) = tell(pipeline, f"b{number}.jpg", "without a usable score")
        assert "which is no number from 0 to 1" in reason or "there is no score for it" in reason
    assert tell(pipeline, "c0.jpg", "without a usable score") == []


# The metadata without a score are left away: of them nothing is told.
@pytest.mark.parametrize(
    ("source", "bad"),
    [*BAD[:2], ("metadata", ["n/a", -0.1])],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_bad_score_gets_the_default_is_counted_and_named(
    pipeline, monkeypatch, tmp_path, capsys, source, bad
):
    values = with_good_ones(bad)
    score_by(pipeline, monkeypatch, source, values, tmp_path, default=0.95)
    run(pipeline, *values)
    ended = sampling_run(pipeline, 1)
    assert (ended.attempt, ended.result["n_scores_by_default"]) == (1, len(bad)), ended.error
    ((name, reason),) = picked(pipeline, 1).items()
    assert (name[0], reason["score"]) == ("b", 0.95)
    assert tell(pipeline, "b0.jpg", "without a usable score") == []
    lines = [line for line in capsys.readouterr().out.splitlines() if "score.unusable" in line]
    assert len(lines) == len(bad)
    for number in range(len(bad)):
        assert sum(f"file_name=b{number}.jpg" in line for line in lines) == 1


def test_source_without_one_usable_score_is_an_error_of_the_run(pipeline, monkeypatch, tmp_path):
    values = {f"a{number}.jpg": 40 for number in range(5)}
    score_by(pipeline, monkeypatch, "jsonl", values, tmp_path)
    run(pipeline, *values)
    assert "no score that can be used for any of the 5 samples" in str(sampling_run(pipeline, 1).error)
    assert pipeline.load_batch_state(1) is BatchState.DEAD


def test_scores_that_never_come_leave_their_samples_out_after_some_attempts(pipeline, monkeypatch, tmp_path):
    monkeypatch.setattr(score_sources, "_MOST_WAITS_FOR_THE_REST", 2)
    score_by(pipeline, monkeypatch, "jsonl", {"a0.jpg": 0.3}, tmp_path)
    run(pipeline, "a0.jpg", "a1.jpg")
    assert sampling_run(pipeline, 1).attempt == 3
    assert set(picked(pipeline, 1)) == {"a0.jpg"}
    assert "there is no score for it" in tell(pipeline, "a1.jpg", "without a usable score")[0]


def test_few_samples_without_any_usable_score_are_done_with_the_reason(pipeline, monkeypatch, tmp_path):
    score_by(pipeline, monkeypatch, "jsonl", {"a0.jpg": 2}, tmp_path)
    run(pipeline, "a0.jpg")
    assert "all 1 samples are without a usable score: nothing to pick" in str(sampling_run(pipeline, 1).error)
    assert pipeline.load_batch_state(1) is BatchState.DONE


class Choosy(DescriptorEmbedder):
    """Gives something else than a vector for the pictures that are so and so many bytes long."""

    def __init__(self, refused: Sequence[bytes], answer: float) -> None:
        super().__init__()
        self._refused, self._answer = set(refused), answer

    def prepare(self, content: bytes) -> Any:
        return content in self._refused, super().prepare(content)

    def embed_prepared(self, prepared: Sequence[Any]) -> Any:
        vectors = super().embed_prepared([picture for _, picture in prepared])
        vectors[[is_refused for is_refused, _ in prepared]] = self._answer
        return vectors


def refuse(pipeline: Pipeline, names: Sequence[str], answer: float = np.nan) -> None:
    contents = [(pipeline.scene.folder / name).read_bytes() for name in names]
    pipeline.embedder = Choosy(contents, answer)


@pytest.mark.parametrize("answer", [np.nan, np.inf, 0.0])
def test_pictures_without_a_vector_are_never_picked_by_distance(pipeline, answer):
    change_sampling(pipeline, budget=2)
    put(pipeline, "a0.jpg", "a1.jpg", "a2.jpg", "a3.jpg")
    refuse(pipeline, ["a1.jpg", "a2.jpg"], answer)
    pipeline.run_all()
    assert set(picked(pipeline, 1)) == {"a0.jpg", "a3.jpg"}
    ended = {row.step: row.result for row in pipeline.load_runs(1)}
    assert ended[Step.EMBED]["n_without_vector"] == ended[Step.SAMPLING]["n_without_vector"] == 2
    assert ended[Step.SAMPLING]["n_candidates"] == 2
    assert len(pipeline.list_tags()["cams-000001-candidates"]) == 2
    (reason,) = tell(pipeline, "a1.jpg", "without a usable vector")
    assert reason.startswith("the embedder")
    (view,) = load_overview(pipeline.scene.database, now_ms=1).watches
    assert view.batches[0].n_without_vector == 2
    assert collect(pipeline)["watcher_samples_without_vector_total"] == 2


def test_picture_without_a_vector_may_be_picked_by_chance(pipeline):
    change_sampling(pipeline, budget=2, method=SamplingMethod.RANDOM)
    put(pipeline, "a0.jpg", "a1.jpg")
    refuse(pipeline, ["a1.jpg"])
    pipeline.run_all()
    found = picked(pipeline, 1)
    assert list(found) == ["a0.jpg", "a1.jpg"]
    assert "distance_to_nearest_earlier_pick" not in found["a1.jpg"]
    # Nor is it what later picks are compared with.
    pipeline.embedder = DescriptorEmbedder()
    run(pipeline, "b1.jpg")
    assert picked(pipeline, 2)["b1.jpg"]["nearest_earlier_pick"] == "a0.jpg"


def test_embedder_that_serves_no_picture_ends_the_run_and_a_replay_computes_anew(pipeline, monkeypatch):
    names = [f"a{number}.jpg" for number in range(5)]
    change_sampling(pipeline, budget=2)
    put(pipeline, *names)
    refuse(pipeline, names)

    class Killed(BaseException):
        """As if the process ended there."""

    def kill(name: str) -> None:
        if name == "embed.refusal_forgotten":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(watcher.jobs.embed, "crash_point", kill)
        with pytest.raises(Killed):
            pipeline.run_all()
    with pipeline.scene.database.write() as session:
        session.execute(update(run_table).values(lease_until_ms=0))
    pipeline.run_all()
    embed = next(row for row in pipeline.load_runs(1) if row.step is Step.EMBED)
    assert "made a vector of none of the 5 pictures of cams-000001" in str(embed.error)
    assert embed.state is RunState.DEAD
    pipeline.embedder = DescriptorEmbedder()
    replay(pipeline.scene)
    pipeline.run_all()
    assert pipeline.load_batch_state(1) is BatchState.DONE
    assert len(picked(pipeline, 1)) == 2
    assert tell(pipeline, "a0.jpg", "without a usable vector") == []
