from __future__ import annotations

import threading

import numpy as np
import pytest

from watcher.lightly import (
    ApiException,
    BitMask,
    CancelledError,
    DatasetError,
    DeadlineExceededError,
    EmbeddingDoesNotExistError,
    NotFoundException,
    SamplerConfig,
    SamplingError,
    SamplingMethod,
    TagDoesNotExistError,
    embeddings,
    scores,
    write_embeddings_csv,
)
from watcher.lightly.workflows.embeddings import wait_until_processed


@pytest.fixture
def embedded(uploaded, tmp_path):
    names = uploaded.get_filenames()
    vectors = np.random.default_rng(1).normal(size=(len(names), 8)).astype(np.float32)
    uploaded.upload_embeddings_from_arrays(names, vectors, "default", projections=())
    wait_until_processed(
        uploaded.transport,
        dataset_id=uploaded.dataset_id,
        embedding_id=uploaded.embedding_id,
        deadline_s=30,
        poll_s=0.05,
    )
    return uploaded


def _read_csv(client, embedding_id: str) -> list[str]:
    url = embeddings.fetch_csv_read_url(
        client.transport, dataset_id=client.dataset_id, embedding_id=embedding_id
    )
    return client.transport.read_url_bytes(url, max_bytes=10**6).body.decode().splitlines()


def test_get_filenames_is_the_mapping(uploaded):
    assert sorted(uploaded.get_filenames()) == [
        "a.png",
        "b.png",
        "c.jpg",
        "sub/d.png",
        "sub/e f+%.png",
        "ü.png",
    ]


def test_get_all_tags_and_each_by_id_and_name(uploaded):
    (tag,) = uploaded.get_all_tags()
    assert tag.name == "initial-tag"
    assert uploaded.get_tag_by_id(tag.id) == tag
    assert uploaded.get_tag_by_name("initial-tag") == tag
    with pytest.raises(TagDoesNotExistError):
        uploaded.get_tag_by_name("no such tag")
    with pytest.raises(NotFoundException):
        uploaded.get_tag_by_id("0" * 24)


def test_get_filenames_in_tag_of_the_initial_tag_is_all(uploaded):
    tag = uploaded.get_tag_by_name("initial-tag")
    assert uploaded.get_filenames_in_tag(tag) == uploaded.get_filenames()
    assert uploaded.get_filenames_in_tag(tag, uploaded.get_filenames()) == uploaded.get_filenames()


def test_create_tag_from_filenames(uploaded):
    names = uploaded.get_filenames()
    tag = uploaded.create_tag_from_filenames([names[4], names[1], names[4]], "picked")
    assert tag.bit_mask_data == BitMask.from_indices([1, 4]).to_hex()
    assert uploaded.get_filenames_in_tag(tag) == [names[1], names[4]]
    with pytest.raises(RuntimeError, match="already"):
        uploaded.create_tag_from_filenames([names[0]], "picked")
    with pytest.raises(RuntimeError, match=r"nobody\.png"):
        uploaded.create_tag_from_filenames([names[0], "nobody.png"], "other")
    child = uploaded.create_tag_from_filenames([names[1]], "child", tag.id)
    assert child.prev_tag_id == tag.id
    assert uploaded.get_filenames_in_tag(child, exclude_parent_tag=True) == []


def test_upload_embeddings_stores_rows_in_mapping_order_and_leaves_the_file_alone(uploaded, tmp_path):
    names = uploaded.get_filenames()
    path = tmp_path / "embeddings.csv"
    order = list(reversed(range(len(names))))
    write_embeddings_csv(path, [names[i] for i in order], [[float(i), -1.5] for i in order], order)
    before = path.read_bytes()
    uploaded.upload_embeddings(str(path), "mine", projections=())
    assert path.read_bytes() == before
    rows = _read_csv(uploaded, uploaded.embedding_id)
    assert rows[0] == "filenames,embedding_0,embedding_1,labels"
    assert [row.rsplit(",", 3)[0].strip('"') for row in rows[1:]] == names
    assert uploaded.get_embedding_by_name("mine").id == uploaded.embedding_id


def test_upload_embeddings_again_fills_up_from_the_stored_ones(embedded, folder_of, tmp_path):
    first = embedded.embedding_id
    folder_of("later.png")
    embedded.upload_dataset(str(tmp_path / "images"), mode="full", verbose=False)
    path = tmp_path / "new.csv"
    write_embeddings_csv(path, ["later.png"], [[7.0] * 8])
    embedded.upload_embeddings(str(path), "default", projections=())
    assert embedded.embedding_id != first
    rows = _read_csv(embedded, embedded.embedding_id)
    assert len(rows) == 1 + 7
    assert rows[-1].startswith("later.png,7.0,")
    assert embedded.get_embedding_by_name("default").id == embedded.embedding_id
    assert embedded.get_embedding_by_name("default", ignore_suffix=False).id == first


def test_upload_embeddings_that_do_not_fit_are_refused(uploaded, tmp_path):
    path = tmp_path / "embeddings.csv"
    write_embeddings_csv(path, ["a.png", "stranger.png"], [[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"5 samples of the dataset have no row.*stranger\.png"):
        uploaded.upload_embeddings(str(path), "mine")


def test_upload_embeddings_from_parquet(uploaded, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    import pyarrow.parquet as pq

    names = uploaded.get_filenames()
    table = pa.table(
        {"filenames": names, "embedding": [[1.0, float(i)] for i in range(6)], "labels": list(range(6))}
    )
    pq.write_table(table, tmp_path / "e.parquet")
    uploaded.upload_embeddings_from_parquet(tmp_path / "e.parquet", "parquet", projections=())
    rows = _read_csv(uploaded, uploaded.embedding_id)
    assert [row.rsplit(",", 1)[1] for row in rows[1:]] == [str(i) for i in range(6)]


def test_upload_embeddings_asks_for_projections(embedded):
    embeddings.trigger_projection(
        embedded.transport, dataset_id=embedded.dataset_id, embedding_id=embedded.embedding_id, method="PCA"
    )


def test_append_embeddings_local_rows_win(embedded, tmp_path):
    names = embedded.get_filenames()
    path = tmp_path / "local.csv"
    write_embeddings_csv(path, ["brand new.png", names[2]], [[1.0] * 8, [2.0] * 8], [5, 6])
    embedded.append_embeddings(str(path), embedded.embedding_id)
    rows = path.read_text().splitlines()
    assert len(rows) == 1 + 7
    assert rows[3] == f"{names[2]}," + ",".join(["2.0"] * 8) + ",6"
    assert rows[-1] == "brand new.png," + ",".join(["1.0"] * 8) + ",5"


def test_append_embeddings_of_another_width_is_refused_and_the_file_stays(embedded, tmp_path):
    path = tmp_path / "local.csv"
    write_embeddings_csv(path, ["brand new.png"], [[1.0, 2.0]])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match=r"3 columns|4 columns"):
        embedded.append_embeddings(str(path), embedded.embedding_id)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []


def test_set_embedding_id_to_latest(embedded):
    chosen = embedded.embedding_id
    embedded.embedding_id = None
    embedded.set_embedding_id_to_latest()
    assert embedded.embedding_id == chosen


def test_get_embedding_by_name_unknown_is_value_error(uploaded):
    with pytest.raises(ValueError, match="no embedding") as caught:
        uploaded.get_embedding_by_name("nothing")
    assert isinstance(caught.value, EmbeddingDoesNotExistError)
    with pytest.raises(EmbeddingDoesNotExistError):
        uploaded.set_embedding_id_to_latest()


@pytest.mark.parametrize("method", [SamplingMethod.RANDOM, SamplingMethod.CORESET])
def test_sampling_picks_the_asked_number(embedded, method):
    states = []
    tag = embedded.sampling(SamplerConfig(method, 3, name=f"s {method}"), on_progress=states.append)
    assert len(embedded.get_filenames_in_tag(tag)) == 3
    assert tag.name == f"s {method}"
    assert states[-1].status == "FINISHED"


def test_sampling_goes_on_from_a_preselected_tag(embedded):
    first = embedded.sampling(SamplerConfig(SamplingMethod.CORESET, 2, name="first"))
    second = embedded.sampling(SamplerConfig(SamplingMethod.CORESET, 4, name="second"), first.id)
    assert set(embedded.get_filenames_in_tag(first)) < set(embedded.get_filenames_in_tag(second))
    assert len(embedded.get_filenames_in_tag(second, exclude_parent_tag=True)) == 2


def test_sampling_with_scores(embedded):
    names = embedded.get_filenames()
    embedded.upload_scores({"uncertainty_entropy": np.linspace(0, 1, len(names))})
    initial = embedded.get_tag_by_name("initial-tag")
    (kind,) = scores.fetch_score_types(embedded.transport, dataset_id=embedded.dataset_id, tag_id=initial.id)
    assert kind.score_type == "uncertainty_entropy"
    tag = embedded.sampling(SamplerConfig("ACTIVE_LEARNING", 2, name="by score"))
    assert sorted(embedded.get_filenames_in_tag(tag)) == sorted(names[-2:])


def test_upload_scores_of_another_length_is_refused(embedded):
    with pytest.raises(DatasetError, match="2 scores"):
        embedded.upload_scores({"uncertainty_margin": [0.5, 0.1]})


def test_sampling_of_a_taken_name_is_runtime_error(embedded):
    with pytest.raises(RuntimeError, match="already"):
        embedded.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="initial-tag"))


def test_sampling_without_scores_is_told_in_the_servers_words(embedded):
    with pytest.raises((SamplingError, ApiException)) as caught:
        embedded.sampling(SamplerConfig(SamplingMethod.CORAL, 2, name="without scores"))
    assert "score" in str(caught.value).lower()


def test_sampling_in_a_dataset_without_tags_is_runtime_error(client):
    with pytest.raises(RuntimeError):
        client.sampling(SamplerConfig(SamplingMethod.CORESET, 2, name="no tags"))


def test_sampling_cancelled_and_out_of_time(embedded):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        embedded.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="cancelled"), cancel=cancel)
    with pytest.raises(DeadlineExceededError):
        embedded.sampling(SamplerConfig(SamplingMethod.RANDOM, 2, name="too late"), deadline_s=0)


def test_index_custom_metadata_by_filename_and_verify(client):
    metadata = {
        "images": [{"file_name": "b.png", "id": 2}, {"file_name": "a.png", "id": 1}],
        "metadata": [{"image_id": 1, "x": 1}, {"image_id": 2, "x": 2}],
    }
    client.verify_custom_metadata_format(metadata)
    found = client.index_custom_metadata_by_filename(["a.png"], metadata)
    assert found == {"a.png": {"image_id": 1, "x": 1}}
    with pytest.raises(KeyError, match="images"):
        client.verify_custom_metadata_format({"metadata": []})
