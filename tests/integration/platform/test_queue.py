"""The queue of jobs: samplings do not wait for plots, no user fills it, and an ended job tells how far it came."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_access import add_user
from tests.integration.platform.test_samplings import N, prepare, start
from tests.waiting import wait_for
from watcher.platform import jobs, projecting, worker
from watcher.platform.store import jobs as store


def plot(api, dataset, embedding, method, expected=200):
    body = {"dimensionalityReductionMethod": method}
    return api("POST", f"{dataset}/embeddings/{embedding}/trigger2dEmbeddingsJob", expected, json=body)


def find_jobs(api, kind) -> list[dict]:
    """The user's jobs of that kind, the oldest first."""
    return [
        api("GET", f"/v1/jobs/{job['jobId']}")
        for job in reversed(api("GET", "/v1/jobs"))
        if job["jobType"] == kind
    ]


@pytest.fixture
def held_plots(monkeypatch):
    """Projections that compute until the event is set."""
    go_on = threading.Event()

    def hold(_platform, _job, **_hooks):
        assert go_on.wait(60)
        return np.zeros((N, 2))

    monkeypatch.setitem(worker._KINDS, jobs.PROJECTION, (hold, projecting.store_result))
    yield go_on
    go_on.set()


def test_sampling_does_not_wait_for_projections_that_run_and_wait(api, held_plots):
    dataset, _initial, embedding = prepare(api)
    for method in ("PCA", "TSNE"):
        plot(api, dataset, embedding, method)
    wait_for(lambda: find_jobs(api, jobs.PROJECTION)[0]["status"] == "RUNNING")
    assert api.wait(start(api, dataset, embedding, "picked")["jobId"], 30.0)["status"] == "FINISHED"
    # One process for plots, however many wait.
    assert [job["status"] for job in find_jobs(api, jobs.PROJECTION)] == ["RUNNING", "WAITING"]
    held_plots.set()
    for job in find_jobs(api, jobs.PROJECTION):
        assert api.wait(job["id"])["status"] == "FINISHED"


def test_claim_takes_the_oldest_of_its_kind_alone(build_server, database_url):
    server = build_server(database_url=database_url, work=False)
    database = server.platform.database
    with Caller(server.url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        plot(api, dataset, embedding, "PCA")
        first, second = (start(api, dataset, embedding, name)["jobId"] for name in ("first", "second"))

        def claim(kind) -> str | None:
            with database.write() as session:
                job = store.claim_job(session, kind=kind, owner="me", now_ms=1, lease_ms=10**15)
            return None if job is None else job.id

        assert [claim(jobs.SAMPLING) for _ in range(3)] == [first, second, None]
        with database.read() as session:
            assert not store.has_ready(session, kind=jobs.SAMPLING, now_ms=1)
            assert store.has_ready(session, kind=jobs.PROJECTION, now_ms=1)
        assert [claim(jobs.PROJECTION) for _ in range(2)] == [find_jobs(api, jobs.PROJECTION)[0]["id"], None]


def test_users_take_turns_however_much_one_has_asked_for(build_server, database_url):
    server = build_server(database_url=database_url, work=False)
    add_user(server, "other", "token-of-the-other")
    with Caller(server.url, TOKEN) as api, Caller(server.url, "token-of-the-other") as other:
        dataset, _initial, embedding = prepare(api)
        mine = [start(api, dataset, embedding, name)["jobId"] for name in ("first", "second", "third")]
        dataset, _initial, embedding = prepare(other)
        theirs = [start(other, dataset, embedding, name)["jobId"] for name in ("first", "second")]
    taken = []
    for now_ms in range(10**15, 10**15 + 5):
        with server.platform.database.write() as session:
            job = store.claim_job(session, kind=jobs.SAMPLING, owner="me", now_ms=now_ms, lease_ms=10**15)
            store.finish_job(session, job_id=job.id, owner="me", now_ms=now_ms, error="done")
        taken.append(job.id)
    assert taken == [mine[0], theirs[0], mine[1], theirs[1], mine[2]]


def test_user_cannot_fill_the_queue_and_holds_up_nobody_else(build_server, database_url):
    server = build_server(database_url=database_url, work=False, max_waiting_jobs=2)
    add_user(server, "other", "token-of-the-other")
    with Caller(server.url, TOKEN) as api, Caller(server.url, "token-of-the-other") as other:
        dataset, _initial, embedding = prepare(api)
        waiting = [start(api, dataset, embedding, name)["jobId"] for name in ("first", "second")]
        refused = start(api, dataset, embedding, "third", expected=429)
        assert refused["code"] == "JOB_CREATION_FAILED"
        assert "2 samplings" in refused["error"]
        # Neither other kinds nor other users nor a name that was refused are held up.
        plot(api, dataset, embedding, "PCA")
        plot(api, dataset, embedding, "PCA")
        plot(api, dataset, embedding, "TSNE")
        assert "2 projections" in plot(api, dataset, embedding, "UMAP", 429)["error"]
        theirs, _initial, vectors = prepare(other)
        start(other, theirs, vectors, "first")
        api("POST", f"/v1/jobs/{waiting[0]}/cancel")
        start(api, dataset, embedding, "third")


def test_ended_job_tells_how_far_it_came_and_leaves_no_folder(build_server, tmp_path):
    with Caller(build_server(isolate_jobs=True).url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        plot(api, dataset, embedding, "PCA")
        assert api.wait(start(api, dataset, embedding, "picked")["jobId"])["meta"] == {
            "total": 5,
            "processed": 5,
        }
        (plotted,) = find_jobs(api, jobs.PROJECTION)
        assert api.wait(plotted["id"])["meta"] == {"total": N, "processed": N}
    assert not (tmp_path / "data" / "listings").exists()


def test_job_that_failed_keeps_how_far_it_came(build_server, monkeypatch):
    def fail(_platform, _job, *, progress, cancelled):
        progress(3, 7)
        raise ValueError("on purpose")

    monkeypatch.setitem(worker._KINDS, jobs.SAMPLING, (fail, None))
    with Caller(build_server().url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        ended = api.wait(start(api, dataset, embedding, "picked")["jobId"])
        assert (ended["status"], ended["meta"]) == ("FAILED", {"total": 7, "processed": 3})


def test_sampling_that_ended_early_is_done_with_what_it_picked(api):
    dataset, _initial, embedding = prepare(api)
    job = api.wait(start(api, dataset, embedding, "picked", n=N, distance=3.0)["jobId"])
    n_picked = len(api("GET", f"{dataset}/tags/{job['result']['data']}")["bitMaskData"])
    assert n_picked
    assert 0 < job["meta"]["processed"] == job["meta"]["total"] < N
