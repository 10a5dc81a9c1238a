"""What is deleted goes at once for all who ask, its rows and files by and by, whatever happens meanwhile."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import event, func, select

from tests.builders import ManualClock
from tests.integration.platform.caller import Caller
from tests.integration.platform.conftest import TOKEN
from tests.integration.platform.test_access import add_user
from tests.integration.platform.test_samplings import N, prepare, start
from tests.waiting import wait_for
from watcher.domain.errors import StoreUnavailableError
from watcher.platform import blobs, cleaning, users
from watcher.platform.cleaning import Cleaner
from watcher.platform.store import tables

NAMES = [f"{number}.jpg" for number in range(N)]
HANGING = ("samples", "tags", "embeddings", "scores", "jobs", "datasources", "shares", "configurations")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(build_server, database_url, clock):
    """Without threads of its own: each test cleans when it says so."""
    running = build_server(database_url=database_url, clock=clock, work=False)
    yield running
    running.stop(5.0)


@pytest.fixture
def filled(api) -> str:
    """A dataset with samples, files and something in every table."""
    dataset = api.create_dataset()
    api.set_local(dataset)
    ids = api.create_samples(dataset, NAMES)
    tag = api.create_initial_tag(dataset)
    url = api("GET", f"{dataset}/samples/{ids[0]}/writeurl", params={"isThumbnail": "true"})
    assert api.session.put(url, data=b"a thumbnail", params={"token": None}, timeout=10).status_code == 200
    api.upload_embedding(dataset, NAMES, [[float(number), 1.0] for number in range(len(NAMES))])
    scores = {"scoreType": "uncertainty_entropy", "scores": [0.5] * len(NAMES)}
    api("POST", f"{dataset}/tags/{tag}/scores", 201, json=scores)
    api("POST", f"{dataset}/configuration/metadata", 201, json={"name": "mine", "configs": []})
    return dataset


def count_rows(server) -> Counter[str]:
    with server.platform.database.read() as session:
        return Counter(
            {
                name: n_rows
                for name in (*HANGING, "datasets")
                if (
                    n_rows := session.execute(
                        select(func.count()).select_from(getattr(tables, name))
                    ).scalar()
                )
            }
        )


def find_files(server) -> list[Path]:
    return [path for path in (server.config.data_dir / "blobs").rglob("*") if path.is_file()]


def test_deleted_dataset_is_gone_at_once_and_soon_its_rows_and_files(server, api, filled, clock):
    add_user(server, "other", "token-of-the-other")
    users.share_dataset(server.platform, dataset_id=filled[-24:], name="other")
    (embedding,) = api("GET", f"{filled}/embeddings")
    job = start(api, filled, embedding["id"], "picked")["jobId"]
    url = api("GET", f"{filled}/embeddings/{embedding['id']}/readCSVUrl")
    sample = api("GET", f"{filled}/mappings?field=_id")[0]
    to_write = api("GET", f"{filled}/samples/{sample}/writeurls")["full"]
    assert len(find_files(server)) == 3
    api("DELETE", filled)
    with Caller(server.url, "token-of-the-other") as other:
        for caller in (api, other):
            caller.refused("GET", filled, 404, "DATASET_UNKNOWN")
            caller.refused("GET", f"{filled}/mappings?field=_id", 404, "DATASET_UNKNOWN")
            assert caller("GET", "/v1/datasets", params={"getAssetsOfTeamInclusiveSelf": True}) == []
    api.refused("GET", f"/v1/jobs/{job}", 404, "JOB_UNKNOWN")
    api.refused("DELETE", filled, 404, "DATASET_UNKNOWN")
    assert api.session.put(to_write, data=b"a picture", timeout=10).status_code == 404
    again = api.create_dataset()
    cleaner = Cleaner(server.platform)
    cleaner.clean()
    assert api.session.get(url, timeout=10).status_code == 404
    assert find_files(server) == []
    assert count_rows(server) == {"datasets": 2}
    # A file of an upload that began before and ended after.
    late = server.config.data_dir / "blobs" / filled[-24:] / "thumb" / "00" / ("0" * 24)
    late.parent.mkdir(parents=True)
    late.write_bytes(b"late")
    cleaner.clean()
    assert find_files(server) == []
    assert count_rows(server) == {"datasets": 2}
    late.parent.mkdir(parents=True)
    late.write_bytes(b"later still")
    clock.advance(4000)
    cleaner.clean()
    assert find_files(server) == []
    assert count_rows(server) == {"datasets": 1}
    assert api("GET", again)["nSamples"] == 0


def test_upload_whose_folder_is_cleaned_away_under_it_is_told_that_the_dataset_is_gone(
    server, api, filled, monkeypatch
):
    sample = api("GET", f"{filled}/mappings?field=_id")[1]
    url = api("GET", f"{filled}/samples/{sample}/writeurls")["full"]
    folder = server.config.data_dir / "blobs" / filled[-24:]
    # It is called between the making of the folder and the renaming of the file.
    monkeypatch.setattr(blobs.os, "fsync", lambda _file: shutil.rmtree(folder, ignore_errors=True))
    answer = api.session.put(url, data=b"a picture", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (404, "DATASET_UNKNOWN")
    assert not list((server.config.data_dir / "blobs" / "uploads").iterdir())


def test_dataset_is_emptied_in_pieces_so_that_nobody_waits_long(server, api, filled, monkeypatch):
    """A million samples in one transaction kept all other writers of SQLite out for half a minute."""
    monkeypatch.setattr(cleaning, "_SAMPLES_AT_ONCE", 15)
    sizes: list[int] = []

    def note(_connection, cursor, statement, *_more):
        if statement.startswith("DELETE FROM platform_samples"):
            sizes.append(cursor.rowcount)

    event.listen(server.platform.database.engine, "after_cursor_execute", note)
    api("DELETE", filled)
    assert sizes == []
    Cleaner(server.platform).clean()
    assert sizes == [15, 15, N - 30, 0]


def test_files_that_cannot_be_removed_now_are_removed_later(server, api, filled, monkeypatch):
    other = api.create_dataset("other")
    delete = server.platform.blobs.delete_dataset

    def refuse(dataset_id):
        if dataset_id == filled[-24:]:
            raise StoreUnavailableError("the bucket is away")
        delete(dataset_id)

    monkeypatch.setattr(server.platform.blobs, "delete_dataset", refuse)
    api("DELETE", filled)
    api("DELETE", other)
    cleaner = Cleaner(server.platform)
    cleaner.clean()
    assert find_files(server)
    with server.platform.database.read() as session:
        rows = session.execute(select(tables.datasets.c.id, tables.datasets.c.emptied_at))
        emptied = {row.id: row.emptied_at for row in rows}
    assert emptied[filled[-24:]] is None
    assert emptied[other[-24:]] is not None
    monkeypatch.undo()
    cleaner.clean()
    assert find_files(server) == []


def test_user_whose_datasets_are_deleted_can_be_removed_before_all_is_cleaned(server):
    add_user(server, "other", "token-of-the-other")
    with Caller(server.url, "token-of-the-other") as other:
        dataset = other.create_dataset()
        other("DELETE", dataset)
    users.remove_user(server.platform, name="other")
    assert [user.name for user in users.list_users(server.platform)] == ["owner"]


def test_embedding_whose_files_cannot_be_removed_can_be_deleted_again(server, api, filled, monkeypatch):
    (embedding,) = api("GET", f"{filled}/embeddings")
    path = f"{filled}/embeddings/{embedding['id']}"

    def refuse(_key):
        raise StoreUnavailableError("the bucket is away")

    monkeypatch.setattr(server.platform.blobs, "delete", refuse)
    api("DELETE", path, 503)
    monkeypatch.undo()
    assert [row["isProcessed"] for row in api("GET", f"{filled}/embeddings")] == [False]
    api("DELETE", path)
    assert [path for path in find_files(server) if "embedding" in path.parts] == []


def test_ended_jobs_are_forgotten_after_their_time_and_what_they_made_stays(
    build_server, database_url, clock
):
    server = build_server(database_url=database_url, clock=clock, job_retention_days=30.0)
    with Caller(server.url, TOKEN) as api:
        dataset, _initial, embedding = prepare(api)
        old = api.wait(start(api, dataset, embedding, "old")["jobId"])
        clock.advance(20 * 86_400)
        new = api.wait(start(api, dataset, embedding, "new")["jobId"])
        clock.advance(11 * 86_400)
        Cleaner(server.platform).clean()
        assert [job["jobId"] for job in api("GET", "/v1/jobs") if job["jobType"] == "SAMPLING"] == [new["id"]]
        api.refused("GET", f"/v1/jobs/{old['id']}", 404, "JOB_UNKNOWN")
        assert api("GET", f"{dataset}/tags/{old['result']['data']}")["name"] == "old"
    server.stop(5.0)


def test_job_is_kept_while_it_waits_and_for_its_time_after_it_ended(server, api, filled, clock):
    (embedding,) = api("GET", f"{filled}/embeddings")
    job = start(api, filled, embedding["id"], "picked")["jobId"]
    clock.advance(400 * 86_400)
    Cleaner(server.platform).clean()
    assert api("GET", f"/v1/jobs/{job}")["status"] == "WAITING"
    api("POST", f"/v1/jobs/{job}/cancel")
    clock.advance(20 * 86_400)
    Cleaner(server.platform).clean()
    assert api("GET", f"/v1/jobs/{job}")["status"] == "FAILED"


def test_platform_cleans_by_itself_when_a_dataset_was_deleted(build_server):
    server = build_server()
    with Caller(server.url, TOKEN) as api:
        dataset = api.create_dataset()
        api.create_samples(dataset, NAMES)
        api("DELETE", dataset)
        wait_for(lambda: not count_rows(server)["samples"], what="the samples are gone")
