"""Samplings as jobs: what is picked, the tag they make, and that they make it once."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import text

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from watcher.domain.bitmask import BitMask
from watcher.platform import jobs, samplers, worker
from watcher.platform.store import jobs as job_store

N = 40
NAMES = [f"{index}.jpg" for index in range(N)]
VECTORS = np.random.default_rng(1).normal(size=(N, 4)).astype(np.float32)


def prepare(api) -> tuple[str, str, str]:
    dataset = api.create_dataset()
    api.create_samples(dataset, NAMES)
    initial = api.create_initial_tag(dataset)
    return dataset, initial, api.upload_embedding(dataset, NAMES, VECTORS)


def start(api, dataset, embedding, name, *, method="CORESET", n=5, distance=-1, expected=200, **more):
    config = {"stoppingCondition": {"nSamples": n, "minDistance": distance}}
    body = {"newTagName": name, "method": method, "config": config, "rowCount": N, **more}
    return api("POST", f"{dataset}/embeddings/{embedding}/sampling", expected, json=body)


def sample(api, dataset, embedding, name, **more) -> dict:
    job = api.wait(start(api, dataset, embedding, name, **more)["jobId"])
    assert job["status"] == "FINISHED", job
    assert job["result"]["type"] == "SAMPLING"
    return api("GET", f"{dataset}/tags/{job['result']['data']}")


def bits(tag) -> list[int]:
    return list(BitMask.from_hex(tag["bitMaskData"]))


def test_coreset_is_farthest_first_and_its_parent_is_the_initial_tag(api):
    dataset, initial, embedding = prepare(api)
    tag = sample(api, dataset, embedding, "picked")
    assert (tag["name"], tag["prevTagId"], tag["totSize"]) == ("picked", initial, N)
    picked = bits(tag)
    assert len(picked) == 5
    expected = samplers.pick(
        method="CORESET",
        vectors=VECTORS,
        candidates=np.arange(N),
        preselected=np.empty(0, dtype=np.int64),
        n_samples=5,
        min_distance=None,
        scores=None,
        seed=0,
        progress=None,
        cancelled=None,
    )
    assert picked == sorted(expected.positions.tolist())


def test_preselected_tag_is_parent_and_part_of_the_picked(api):
    dataset, _initial, embedding = prepare(api)
    first = sample(api, dataset, embedding, "first", n=4)
    second = sample(api, dataset, embedding, "second", n=9, preselectedTagId=first["id"])
    assert second["prevTagId"] == second["preselectedTagId"] == first["id"]
    assert set(bits(first)) < set(bits(second))
    assert len(bits(second)) == 9
    enough = sample(api, dataset, embedding, "enough", n=3, preselectedTagId=first["id"])
    assert bits(enough) == bits(first)


def test_only_samples_of_the_query_tag_are_picked(api):
    dataset, initial, embedding = prepare(api)
    body = {"name": "query", "prevTagId": initial, "bitMaskData": "0xff00", "totSize": N}
    query = api("POST", f"{dataset}/tags", 201, json=body)["id"]
    tag = sample(api, dataset, embedding, "picked", method="RANDOM", n=8, queryTagId=query)
    assert bits(tag) == list(range(8, 16))
    assert tag["queryTagId"] == query


def test_share_and_distance_and_no_condition(api):
    dataset, _initial, embedding = prepare(api)
    assert len(bits(sample(api, dataset, embedding, "a quarter", method="RANDOM", n=0.25))) == N / 4
    tag = sample(api, dataset, embedding, "far apart", n=-1, distance=2.0)
    chosen = VECTORS[bits(tag)]
    gaps = np.linalg.norm(chosen[:, None] - chosen[None], axis=2)[np.triu_indices(len(chosen), 1)]
    assert gaps.min() >= 2.0
    job = api.wait(start(api, dataset, embedding, "endless", n=-1)["jobId"])
    assert (job["status"], "result" in job) == ("FAILED", False)
    assert job["error"]


@pytest.mark.parametrize("method", ["ACTIVE_LEARNING", "CORAL"])
def test_methods_with_scores_need_them(api, method):
    dataset, initial, embedding = prepare(api)
    refused = start(api, dataset, embedding, "picked", method=method, expected=422)
    assert refused["code"] == "TAG_NO_SCORES_AVAILABLE"
    scores = np.linspace(0, 1, N).tolist()
    body = {"scoreType": "uncertainty_margin", "scores": scores}
    api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
    assert start(api, dataset, embedding, "x y z", method=method, expected=422, scoreType="other")["code"]
    tag = sample(api, dataset, embedding, "picked", method=method, n=3)
    if method == "ACTIVE_LEARNING":
        assert bits(tag) == [N - 3, N - 2, N - 1]
    assert N - 1 in bits(tag)


def test_sampling_is_refused_when_something_does_not_fit(api):
    dataset, _initial, embedding = prepare(api)
    assert start(api, dataset, embedding, "initial-tag", expected=409)["code"] == "TAG_NAME_EXISTS"
    wrong = start(api, dataset, embedding, "picked", expected=422, rowCount=N - 1)
    assert wrong["code"] == "EMBEDDING_ROW_COUNT_INVALID"
    assert wrong["error"] == f"rowCount is {N - 1}, but the embedding has {N} rows"
    other = api.create_dataset("other")
    api.create_samples(other, ["a.jpg"])
    foreign = api.create_initial_tag(other)
    refused = start(api, dataset, embedding, "picked", expected=404, queryTagId=foreign)
    assert refused["code"] == "TAG_QUERYTAG_NOT_IN_DATASET"
    refused = start(api, dataset, embedding, "picked", expected=404, preselectedTagId=foreign)
    assert refused["code"] == "TAG_PRESELECTEDTAG_NOT_IN_DATASET"
    assert start(api, other, embedding, "picked", expected=404)["code"] == "EMBEDDING_UNKNOWN"
    empty = api("GET", f"{dataset}/embeddings/writeCSVUrl", params={"name": "empty"})["embeddingId"]
    assert start(api, dataset, empty, "picked", expected=422)["code"] == "EMBEDDING_NOT_READY"
    api.create_samples(dataset, ["later.jpg"])
    api("POST", f"{dataset}/tags/upsize", 201, json={"upsizeTagName": "more", "upsizeTagCreator": "USER_PIP"})
    stale = start(api, dataset, embedding, "picked", expected=422)
    assert stale["code"] == "EMBEDDING_ROW_COUNT_INVALID"
    assert f"the embedding has {N} rows, the tags reach over {N + 1} samples" in stale["error"]


def test_greatest_numbers_of_a_request_end_in_picks(light_api):
    dataset, initial, embedding = prepare(light_api)
    for kind in ("one", "two", "three"):
        body = {"scoreType": kind, "scores": np.linspace(1e308, 1.7e308, N).tolist()}
        light_api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
    for method in samplers.METHODS:
        one = sample(light_api, dataset, embedding, f"{method} one", method=method, distance=1e300)
        assert len(bits(one)) == 1
        every = sample(light_api, dataset, embedding, f"{method} all", method=method, n=1e300)
        assert bits(every) == list(range(N))
    best = sample(light_api, dataset, embedding, "best", method="ACTIVE_LEARNING", n=2)
    assert bits(best) == [N - 2, N - 1]


def test_of_two_samplings_for_one_tag_name_one_wins(api):
    dataset, _initial, embedding = prepare(api)

    def post(_):
        config = {"stoppingCondition": {"nSamples": 5, "minDistance": -1}}
        body = {"newTagName": "picked", "method": "RANDOM", "config": config, "rowCount": N}
        return api.request("POST", f"{dataset}/embeddings/{embedding}/sampling", json=body)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    (won,) = (answer.json()["jobId"] for answer in answers if answer.status_code == 200)
    assert api.wait(won)["status"] == "FINISHED"
    assert [tag["name"] for tag in api("GET", f"{dataset}/tags")].count("picked") == 1


def test_name_of_a_waiting_sampling_is_free_for_nobody_else(build_server, database_url):
    with Caller(build_server(database_url=database_url, work=False).url, TOKEN) as api:
        dataset, initial, embedding = prepare(api)
        job = start(api, dataset, embedding, "picked")["jobId"]
        body = {"name": "picked", "prevTagId": initial, "bitMaskData": "0x1", "totSize": N}
        api.refused("POST", f"{dataset}/tags", 409, "TAG_NAME_EXISTS", json=body)
        assert api("GET", f"/v1/jobs/{job}")["status"] == "WAITING"
        api("POST", f"/v1/jobs/{job}/cancel")
        assert api("GET", f"/v1/jobs/{job}")["error"] == "cancelled"
        api("POST", f"{dataset}/tags", 201, json=body)


def test_job_waiting_at_a_restart_is_carried_out_after_it(build_server, database_url):
    with Caller(build_server(database_url=database_url, work=False).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = start(api, dataset, embedding, "picked")["jobId"]
    with Caller(build_server(database_url=database_url).url, TOKEN) as api:
        assert api.wait(job)["status"] == "FINISHED"
        assert len(bits(api("GET", f"{dataset}/tags")[-1])) == 5


def upsize(api, dataset, name):
    api.create_samples(dataset, [f"{name}-{index}.jpg" for index in range(3)])
    api("POST", f"{dataset}/tags/upsize", 201, json={"upsizeTagName": name, "upsizeTagCreator": "USER_PIP"})


@pytest.mark.parametrize("method", ["CORESET", "RANDOM", "ACTIVE_LEARNING", "CORAL"])
def test_sampling_that_waits_while_samples_are_added_picks_from_those_of_its_request(build_server, method):
    with Caller(build_server(work=False).url, TOKEN) as api:
        dataset, initial, embedding = prepare(api)
        body = {"scoreType": "uncertainty_margin", "scores": np.linspace(0, 1, N).tolist()}
        api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
        first = start(api, dataset, embedding, "first", method=method)["jobId"]
        # Everything counts as picked before, also what comes meanwhile.
        second = start(api, dataset, embedding, "second", method=method, preselectedTagId=initial)["jobId"]
        third = start(api, dataset, embedding, "third", method=method)["jobId"]
        upsize(api, dataset, "more")
    with Caller(build_server().url, TOKEN) as api:
        jobs = [api.wait(job) for job in (first, second, third)]
        assert [job.get("error") for job in jobs] == [None] * 3
        found = [bits(api("GET", f"{dataset}/tags/{job['result']['data']}")) for job in jobs]
    assert [len(each) for each in found] == [5, N + 3, 5]
    assert max(found[0] + found[2]) < N


def test_sampling_that_waits_takes_scores_that_came_with_the_added_samples(build_server):
    with Caller(build_server(work=False).url, TOKEN) as api:
        dataset, initial, embedding = prepare(api)
        body = {"scoreType": "uncertainty_margin", "scores": np.linspace(0, 1, N).tolist()}
        api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
        job = start(api, dataset, embedding, "picked", method="ACTIVE_LEARNING", n=2)["jobId"]
        upsize(api, dataset, "more")
        body["scores"] = [*np.linspace(1, 0, N).tolist(), 2, 2, 2]
        api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
        upsize(api, dataset, "still more")
    with Caller(build_server().url, TOKEN) as api:
        assert api.wait(job)["status"] == "FINISHED"
        assert bits(api("GET", f"{dataset}/tags")[-1]) == [0, 1]


def test_sampling_after_samples_were_added_needs_scores_for_them(api):
    dataset, initial, _embedding = prepare(api)
    body = {"scoreType": "uncertainty_margin", "scores": [0.5] * N}
    api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
    upsize(api, dataset, "more")
    names = [*NAMES, *(f"more-{index}.jpg" for index in range(3))]
    vectors = np.vstack([VECTORS, VECTORS[:3]])
    embedding = api.upload_embedding(dataset, names, vectors, name="whole")
    more = {"method": "CORAL", "rowCount": N + 3}
    refused = start(api, dataset, embedding, "picked", expected=422, **more)
    assert refused["code"] == "TAG_NO_SCORES_AVAILABLE"
    assert f"{N} scores" in refused["error"]
    body["scores"] = [0.5] * (N + 3)
    api("POST", f"{dataset}/tags/{initial}/scores", 201, json=body)
    sample(api, dataset, embedding, "picked", **more)


def test_job_of_a_dead_worker_is_taken_over_and_the_dead_one_stores_nothing(build_server, database_url):
    server = build_server(database_url=database_url, work=False, job_lease_s=0.5)
    database = server.platform.database
    with Caller(server.url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = start(api, dataset, embedding, "picked")["jobId"]
        now_ms = int(time.time() * 1000)
        with database.write() as session:
            claimed = job_store.claim_job(
                session, kind=jobs.SAMPLING, owner="dead", now_ms=now_ms, lease_ms=500
            )
            assert claimed.id == job
        with database.write() as session:
            again = job_store.claim_job(
                session, kind=jobs.SAMPLING, owner="other", now_ms=now_ms, lease_ms=500
            )
            assert again is None
        build_server(database_url=database_url, job_lease_s=0.5)
        assert api.wait(job)["status"] == "FINISHED"
        with database.write() as session:
            ended = job_store.finish_job(session, job_id=job, owner="dead", now_ms=now_ms, error="late")
            assert not ended
        assert api("GET", f"/v1/jobs/{job}")["status"] == "FINISHED"
        assert [tag["name"] for tag in api("GET", f"{dataset}/tags")].count("picked") == 1


def test_running_job_is_cancelled_and_its_name_is_free_again(build_server, monkeypatch):
    def endless(*, cancelled, **_arguments):
        from watcher.domain.errors import CancelledError

        while not cancelled():
            time.sleep(0.01)
        raise CancelledError("stopped")

    monkeypatch.setattr(samplers, "pick", endless)
    with Caller(build_server(job_lease_s=1.0).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = start(api, dataset, embedding, "picked")["jobId"]
        while api("GET", f"/v1/jobs/{job}")["status"] != "RUNNING":
            time.sleep(0.02)
        api("POST", f"/v1/jobs/{job}/cancel")
        ended = api.wait(job)
        assert (ended["status"], ended["error"]) == ("FAILED", "cancelled")
        start(api, dataset, embedding, "picked")


def test_job_given_back_at_a_stop_does_not_count_as_an_attempt(build_server, monkeypatch):
    def endless(*, cancelled, **_arguments):
        from watcher.domain.errors import CancelledError

        while not cancelled():
            time.sleep(0.01)
        raise CancelledError("stopped")

    server = build_server()
    with Caller(server.url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        with monkeypatch.context() as patch:
            patch.setattr(samplers, "pick", endless)
            job = start(api, dataset, embedding, "picked")["jobId"]
            while api("GET", f"/v1/jobs/{job}")["status"] != "RUNNING":
                time.sleep(0.02)
            server.stop(5.0)
    with Caller(build_server().url, TOKEN) as api:
        assert api.wait(job)["status"] == "FINISHED"


def test_crash_of_a_sampling_ends_the_job_with_a_reason(build_server, monkeypatch):
    def crash(**_arguments):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(samplers, "pick", crash)
    with Caller(build_server().url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = api.wait(start(api, dataset, embedding, "picked")["jobId"])
        assert (job["status"], job["error"]) == ("FAILED", "internal error: ZeroDivisionError")
        assert len(api("GET", f"{dataset}/tags")) == 1


def test_jobs_are_listed_for_their_user_alone(server, api):
    from tests.integration.platform.test_access import add_user

    dataset, _initial, embedding = prepare(api)
    job = start(api, dataset, embedding, "picked")["jobId"]
    api.wait(job)
    assert [entry["jobId"] for entry in api("GET", "/v1/jobs")] == [job]
    add_user(server, "other", "token-of-the-other")
    with Caller(server.url, "token-of-the-other") as other:
        assert other("GET", "/v1/jobs") == []
        other.refused("GET", f"/v1/jobs/{job}", 404, "JOB_UNKNOWN")
        other.refused("POST", f"/v1/jobs/{job}/cancel", 404, "JOB_UNKNOWN")


def test_sampling_in_a_process_of_its_own_gives_the_same(build_server):
    with Caller(build_server(isolate_jobs=True).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        picked = bits(sample(api, dataset, embedding, "picked"))
        job = api.wait(start(api, dataset, embedding, "endless", n=-1)["jobId"])
        assert "nSamples" in job["error"]
        assert len(api("GET", f"{dataset}/tags")) == 2
    with Caller(build_server(isolate_jobs=False).url, TOKEN) as api:
        assert bits(sample(api, dataset, embedding, "again")) == picked


def sleep_in_the_process(platform, _job, **_more):
    (platform.config.data_dir / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def die_in_the_process(*_arguments, **_more):
    os.kill(os.getpid(), 9)


def die_at_first(platform, job, **more):
    mark = platform.config.data_dir / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), 9)
    return worker._KINDS[jobs.SAMPLING][0](platform, job, **more)


def test_process_of_a_cancelled_job_is_ended(build_server, monkeypatch, tmp_path):
    monkeypatch.setitem(worker._KINDS, jobs.SAMPLING, (sleep_in_the_process, None))
    with Caller(build_server(isolate_jobs=True).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = start(api, dataset, embedding, "picked")["jobId"]
        note = tmp_path / "data" / "pid"
        while not (note.exists() and note.read_text()):
            time.sleep(0.05)
        pid = int(note.read_text())
        assert pid != os.getpid()
        api("POST", f"/v1/jobs/{job}/cancel")
        assert api.wait(job)["error"] == "cancelled"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_death_of_the_process_ends_the_job_and_not_the_server(build_server, monkeypatch):
    monkeypatch.setitem(worker._KINDS, jobs.SAMPLING, (die_in_the_process, None))
    with Caller(build_server(isolate_jobs=True).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = api.wait(start(api, dataset, embedding, "picked")["jobId"])
        assert job["status"] == "FAILED"
        assert "code -9, 2 times" in job["error"]


def test_sampling_whose_process_was_killed_is_begun_again_and_its_tag_appears_once(build_server, monkeypatch):
    keep = worker._KINDS[jobs.SAMPLING][1]
    monkeypatch.setitem(worker._KINDS, jobs.SAMPLING, (die_at_first, keep))
    with Caller(build_server(isolate_jobs=True).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = api.wait(start(api, dataset, embedding, "picked")["jobId"])
        assert job["status"] == "FINISHED", job
        assert [tag["name"] for tag in api("GET", f"{dataset}/tags")].count("picked") == 1


def test_worker_that_lost_its_lease_stores_nothing(build_server, monkeypatch):
    real, entered, go_on = samplers.pick, threading.Event(), threading.Event()

    def slow(**arguments):
        entered.set()
        go_on.wait(60)
        return real(**{**arguments, "cancelled": None})

    monkeypatch.setattr(samplers, "pick", slow)
    server = build_server(job_lease_s=30.0)
    with Caller(server.url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        job = start(api, dataset, embedding, "picked")["jobId"]
        assert entered.wait(60)
        with server.platform.database.write() as session:
            session.execute(text("UPDATE platform_jobs SET lease_owner = 'another'"))
        go_on.set()
        second = api.wait(start(api, dataset, embedding, "after it", method="RANDOM")["jobId"])
        assert second["status"] == "FINISHED"  # so the worker is done with the first one
        assert api("GET", f"/v1/jobs/{job}")["status"] == "RUNNING"
        assert "picked" not in [tag["name"] for tag in api("GET", f"{dataset}/tags")]
