"""Faults 24 to 36 of the original: embeddings, tags, sampling. `docs/differences.md` tells each."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tests.contract.client.middleman import LOSE_ANSWER
from watcher.lightly import (
    ApiException,
    BitMask,
    CancelledError,
    DatasetError,
    DeadlineExceededError,
    EmbeddingDoesNotExistError,
    SamplerConfig,
    SamplingMethod,
    embeddings,
    write_embeddings_csv,
)
from watcher.lightly.workflows.embeddings import upload_embeddings_csv, wait_until_processed


@pytest.fixture
def six(through, uploaded):
    """The client by way of the middleman, with six uploaded images."""
    return through


@pytest.fixture
def csv(six, tmp_path):
    names = six.get_filenames()
    path = tmp_path / "embeddings.csv"
    write_embeddings_csv(path, names, np.arange(12.0).reshape(6, 2))
    return path


def _wait(client) -> None:
    wait_until_processed(
        client.transport,
        dataset_id=client.dataset_id,
        embedding_id=client.embedding_id,
        deadline_s=20,
        poll_s=0.05,
    )


def _upload(client, path, name: str = "default") -> str:
    client.upload_embeddings(str(path), name, projections=())
    _wait(client)
    return client.embedding_id


def _is_csv_put(asked) -> bool:
    return asked.method == "PUT" and "/v1/" not in asked.path


def test_fault_24_a_name_that_begins_alike_is_another_one(six, csv, man):
    _upload(six, csv, "abc")
    with pytest.raises(EmbeddingDoesNotExistError):
        six.get_embedding_by_name("a")
    with pytest.raises(EmbeddingDoesNotExistError):
        six.get_embedding_by_name("ab", ignore_suffix=True)
    _upload(six, csv, "a")
    assert six.get_embedding_by_name("a", ignore_suffix=False).name == "a"
    assert man.count("GET", "readCSVUrl") == 0


def test_fault_24_a_second_upload_of_a_name_within_a_second_works(six, csv, monkeypatch):
    monkeypatch.setattr("watcher.lightly.client._build_time_suffix", lambda: "_20220301_10h00m00s")
    ids = {_upload(six, csv) for _ in range(3)}
    assert len(ids) == 3
    names = [e.name for e in embeddings.fetch_embeddings(six.transport, dataset_id=six.dataset_id)]
    assert sorted(names) == ["default", "default_20220301_10h00m00s", "default_20220301_10h00m00s_1"]
    assert six.get_embedding_by_name("default").id == six.embedding_id


def test_fault_25_the_callers_file_is_only_read(six, tmp_path):
    path = tmp_path / "mine.csv"
    rows = [f"{name},{i}.5,{i},extra" for i, name in enumerate(six.get_filenames())]
    path.write_text("filenames,embedding_0,labels,masks\n" + "\n".join(rows) + "\n")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    _upload(six, path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_fault_25_columns_in_another_order_are_refused(six, csv, tmp_path):
    _upload(six, csv)
    path = tmp_path / "turned.csv"
    path.write_text("filenames,embedding_1,embedding_0,labels\nnew.png,1,2,0\n")
    with pytest.raises(DatasetError, match="names differ"):
        six.append_embeddings(str(path), six.embedding_id)
    assert path.read_text().startswith("filenames,embedding_1")


def test_fault_26_a_failed_upload_leaves_nothing_in_the_way(six, csv, man):
    left = [9]

    def refuse(asked):
        if _is_csv_put(asked) and left[0]:
            left[0] -= 1
            return (503, b"down")
        return None

    man.rules.append(refuse)
    with pytest.raises(ApiException):
        six.upload_embeddings(str(csv), "default", projections=())
    assert six.embedding_id is None
    left[0] = 0
    _upload(six, csv)
    assert six.get_embedding_by_name("default", ignore_suffix=False).is_processed


def test_fault_26_a_lost_answer_of_the_write_url_is_survived(six, csv, man):
    man.when("GET", "writeCSVUrl", LOSE_ANSWER)
    embedding_id = upload_embeddings_csv(six.transport, dataset_id=six.dataset_id, path=csv, name="once")
    six.embedding_id = embedding_id
    _wait(six)
    again = upload_embeddings_csv(six.transport, dataset_id=six.dataset_id, path=csv, name="once")
    assert again == embedding_id
    named = [
        e for e in embeddings.fetch_embeddings(six.transport, dataset_id=six.dataset_id) if e.name == "once"
    ]
    assert len(named) == 1


def test_fault_27_the_put_of_the_csv_is_repeated_whole(six, csv, man):
    left = [2]

    def fail(asked):
        if _is_csv_put(asked) and left[0]:
            left[0] -= 1
            return (500, b"try again")
        return None

    man.rules.append(fail)
    _upload(six, csv)
    assert [a.body for a in man.asked if _is_csv_put(a)] == [csv.read_bytes()] * 3


def test_fault_28_the_mapping_is_read_once(six, csv, man):
    man.asked.clear()
    six.upload_embeddings(str(csv), "default", projections=())
    assert man.count("GET", "/mappings") == 1


def test_fault_29_latest_is_the_newest_whatever_the_order(six, csv, man):
    first = _upload(six, csv, "first")
    time.sleep(0.01)
    second = _upload(six, csv, "second")
    six.embedding_id = first

    def turn_round(status: int, body: bytes) -> tuple[int, bytes]:
        import json

        return status, json.dumps(json.loads(body)[::-1]).encode()

    man.when("GET", "/embeddings", turn_round, times=9)
    six.set_embedding_id_to_latest()
    assert six.embedding_id == second


def test_fault_30_a_failing_projection_only_warns(six, csv, man):
    man.when("POST", "trigger2dEmbeddingsJob", (422, {"code": "EMBEDDING_INVALID", "error": "no"}), times=9)
    with pytest.warns(UserWarning, match="the embedding is stored"):
        six.upload_embeddings(str(csv), "default")
    assert six.embedding_id is not None
    assert man.count("POST", "trigger2dEmbeddingsJob") == 3


def test_fault_31_polling_ends_by_time_by_cancel_and_at_4xx(six, csv, man):
    _upload(six, csv)
    running = {"id": "j", "status": "RUNNING", "waitTimeTillNextPoll": 0, "createdAt": 1}
    man.rules.append(lambda asked: (200, running) if "/v1/jobs/" in asked.path else None)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="late"), deadline_s=0.9)
    assert 0.8 < time.monotonic() - begun < 60
    # A server that says 0 is still not asked without pause.
    assert sum("/v1/jobs/" in path for path in man.paths("GET")) <= 6
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    with pytest.raises(CancelledError):
        six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="cancelled"), cancel=cancel)
    man.rules[:] = [
        lambda asked: (404, {"code": "JOB_UNKNOWN", "error": "?"}) if "/v1/jobs/" in asked.path else None
    ]
    man.asked.clear()
    with pytest.raises(ApiException):
        six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="unknown job"))
    assert sum("/v1/jobs/" in path for path in man.paths("GET")) == 1


def test_fault_31_a_few_failing_polls_are_survived(six, csv, man):
    _upload(six, csv)
    left = [5]

    def fail(asked):
        if "/v1/jobs/" in asked.path and left[0]:
            left[0] -= 1
            return (502, b"<html>bad gateway</html>")
        return None

    man.rules.append(fail)
    tag = six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="survived"))
    assert len(six.get_filenames_in_tag(tag)) == 2


def test_fault_32_random_needs_no_embedding(six):
    first = six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="two"))
    assert len(six.get_filenames_in_tag(first)) == 2
    more = six.sampling(SamplerConfig(SamplingMethod.RANDOM, 5, name="five"), preselected_tag_id=first.id)
    assert set(six.get_filenames_in_tag(first)) < set(six.get_filenames_in_tag(more))
    assert len(six.get_filenames_in_tag(more)) == 5
    share = six.sampling(SamplerConfig(SamplingMethod.RANDOM, 0.5, name="half"), query_tag_id=more.id)
    assert len(six.get_filenames_in_tag(share)) == 3
    with pytest.raises(EmbeddingDoesNotExistError):
        six.sampling(SamplerConfig(SamplingMethod.CORESET, 2, name="not without"))


def test_fault_32_tags_are_fetched_once(six, csv, man):
    _upload(six, csv)
    man.asked.clear()
    six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="fetched once"))
    assert man.count("GET", "/tags") == 1


def test_fault_32_a_lost_answer_starts_no_second_tag(six, csv, man):
    _upload(six, csv)
    man.when("POST", "/sampling", LOSE_ANSWER)
    tag = six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="once"))
    assert tag.name == "once"
    assert [t.name for t in six.get_all_tags()].count("once") == 1


def test_fault_33_excluding_the_parent_of_the_initial_tag_is_told(six, man):
    tag = six.get_tag_by_name("initial-tag")
    with pytest.raises(DatasetError, match="no parent"):
        six.get_filenames_in_tag(tag, exclude_parent_tag=True)


def test_fault_33_an_empty_list_of_names_is_taken_as_given(six, man):
    tag = six.get_tag_by_name("initial-tag")
    man.asked.clear()
    with pytest.raises(DatasetError, match="only 0 samples"):
        six.get_filenames_in_tag(tag, filenames_on_server=[])
    assert man.asked == []


def test_fault_34_masks_are_linear_and_checked(six):
    n = 1_000_000
    names = [str(i) for i in range(n)]
    tag = six.get_tag_by_name("initial-tag")
    import msgspec

    wide = msgspec.structs.replace(tag, bit_mask_data=BitMask.from_length(n).to_hex(), tot_size=n)
    begun = time.process_time()
    assert len(six.get_filenames_in_tag(wide, names)) == n
    assert time.process_time() - begun < 1
    with pytest.raises(DatasetError, match="only 999999 samples"):
        six.get_filenames_in_tag(wide, names[:-1])
    broken = msgspec.structs.replace(tag, bit_mask_data="0xzz")
    with pytest.raises(DatasetError, match="not a bit mask"):
        six.get_filenames_in_tag(broken, names)


def test_fault_35_unknown_names_in_an_empty_dataset_are_told(client):
    with pytest.raises(RuntimeError, match="no tags yet"):
        client.create_tag_from_filenames(["a.png"], "new tag")


def test_fault_35_a_whole_tag_is_given_back(six):
    tag = six.create_tag_from_filenames(["a.png"], "new tag")
    assert tag.bit_mask_data.startswith("0x")
    assert tag.tot_size == 6


def test_fault_35_a_lost_answer_makes_no_second_tag(six, man):
    man.when("POST", "/tags", LOSE_ANSWER)
    tag = six.create_tag_from_filenames(["a.png"], "new tag")
    assert [t.id for t in six.get_all_tags() if t.name == "new tag"] == [tag.id]


@pytest.mark.parametrize("name", ["", "ab", " abc", "a/b c", "tag\n", "ä" * 5])
def test_fault_36_names_that_no_tag_may_bear_are_refused_before_sending(six, man, name):
    man.asked.clear()
    with pytest.raises(DatasetError, match="cannot be the name of a tag"):
        six.create_tag_from_filenames(["a.png"], name)
    with pytest.raises(DatasetError, match="cannot be the name of a tag"):
        six.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name=name))
    assert man.asked == []
