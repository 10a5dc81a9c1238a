"""Every workflow of `lightly` 1.2.8 against a platform; run by that client's own environment."""

# ruff: noqa: PT018 - a program, not a test
from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import requests
import shim_1_2_8  # noqa: F401 - before the client
from lightly.active_learning.agents import ActiveLearningAgent
from lightly.active_learning.config import SamplerConfig
from lightly.api import ApiWorkflowClient
from lightly.api.api_workflow_upload_embeddings import EmbeddingDoesNotExistError
from lightly.openapi_generated.swagger_client.models import (
    SamplingMethod,
    TagArithmeticsOperation,
    TagArithmeticsRequest,
)
from lightly.openapi_generated.swagger_client.rest import ApiException
from workflows import (
    Run,
    bits_of,
    check_farthest_first,
    make_folders,
    make_pictures,
    make_vectors,
    read_csv,
    write_csv,
)

run = Run()


def expect(kind, function, *arguments, **more):
    try:
        function(*arguments, **more)
    except kind as error:
        return error
    raise AssertionError(f"{kind} was expected")


@run.step
def construct(c):
    c["client"] = ApiWorkflowClient(token=c["token"])
    c["names"] = sorted(
        str(p.relative_to(c["pictures"])) for p in Path(c["pictures"]).rglob("*") if p.is_file()
    )


@run.step
def wrong_token_is_401(c):
    client = ApiWorkflowClient(token="wrong-token")
    error = expect(ApiException, client._datasets_api.get_datasets)
    assert error.status == 401 and b"UNAUTHORIZED" in error.body.encode()


@run.step
def datasets(c):
    client = c["client"]
    expect(IndexError, lambda: client.dataset_id)
    client.create_dataset("pictures")
    c["id"] = client.dataset_id
    client.create_dataset("pictures")
    assert client.dataset_id == c["id"]
    client.create_new_dataset_with_unique_name("pictures")
    second = client.dataset_id
    assert second != c["id"]
    client.set_dataset_id_by_name("pictures_1")
    assert client.dataset_id == second
    client.delete_dataset_by_id(second)
    client.set_dataset_id_by_name("pictures")
    assert client.dataset_id == c["id"]
    expect(ValueError, client.set_dataset_id_by_name, "nobody")
    assert client.dataset_type == "Images"
    assert ApiWorkflowClient(token=c["token"]).dataset_id == c["id"]


@run.step
def upload_full_pictures(c):
    client = c["client"]
    client.upload_dataset(c["pictures"], mode="full", max_workers=2, verbose=False)
    assert sorted(client.get_filenames()) == c["names"]
    c["mapping"] = client.get_filenames()
    (tag,) = client.get_all_tags()
    assert tag.name == "initial-tag" and tag.tot_size == len(c["names"])
    samples = client._samples_api.get_samples_by_dataset_id(dataset_id=client.dataset_id)
    assert [s.file_name for s in samples] == c["mapping"]
    for sample in samples:
        assert sample.thumb_name == sample.file_name.rpartition(".")[0] + "_thumb.webp"
        assert sample.meta_data.shape[2] == 3 and len(sample.meta_data.mean) == 3
        original = (Path(c["pictures"]) / sample.file_name).read_bytes()
        assert sample.meta_data.size_in_bytes == len(original)
        for kind in ("full", "thumbnail"):
            url = client._samples_api.get_sample_image_read_url_by_id(client.dataset_id, sample.id, type=kind)
            content = requests.get(url, timeout=10).content
            assert content == original if kind == "full" else content[8:12] == b"WEBP"


@run.step
def repeated_upload_changes_nothing(c):
    client = c["client"]
    client.upload_dataset(c["pictures"], mode="full", max_workers=2, verbose=False)
    assert client.get_filenames() == c["mapping"] and len(client.get_all_tags()) == 1


@run.step
def more_pictures_are_an_upsize(c):
    client = c["client"]
    folder = Path(c["work"]) / "more"
    make_pictures(folder, ["more/new 1.jpg", "more/new 2.png"])
    client.upload_dataset(str(folder), mode="thumbnails", max_workers=2, verbose=False)
    tags = client.get_all_tags()
    assert {tag.tot_size for tag in tags} == {len(c["names"]) + 2}
    added = next(tag for tag in tags if tag.name != "initial-tag")
    assert sorted(client.get_filenames_in_tag(added)) == ["more/new 1.jpg", "more/new 2.png"]
    c["mapping"] = client.get_filenames()
    assert client.get_filenames_in_tag(next(t for t in tags if t.name == "initial-tag")) == c["mapping"]


@run.step
def broken_picture_fails_its_own_upload_alone(c):
    folder = Path(c["work"]) / "metadata"
    make_pictures(folder, ["only/meta.jpg"])
    other = ApiWorkflowClient(token=c["token"])
    other.create_dataset("only metadata")
    metadata = {
        "images": [{"id": 0, "file_name": "only/meta.jpg"}],
        "metadata": [{"image_id": 0, "color": "red"}],
    }
    other.upload_dataset(str(folder), mode="metadata", verbose=False, custom_metadata=metadata)
    (sample,) = other._samples_api.get_samples_by_dataset_id(dataset_id=other.dataset_id)
    assert sample.custom_meta_data == {"image_id": 0, "color": "red"}
    error = expect(
        ApiException, other._samples_api.get_sample_image_read_url_by_id, other.dataset_id, sample.id
    )
    assert error.status == 404
    expect(ValueError, other.download_dataset, str(folder / "out"))


@run.step
def datasource_listing_and_mark(c):
    client = c["client"]
    expect(ApiException, client.get_datasource)
    # No workflow of this generation sets a datasource; its web application did.
    address = f"{c['url']}/v1/datasets/{client.dataset_id}/datasource"
    body = {"type": "LOCAL", "fullPath": "incoming", "thumbSuffix": "x"}
    assert requests.put(address, params={"token": c["token"]}, json=body, timeout=10).status_code == 200
    assert client.get_datasource()["type"] == "LOCAL"
    listed = client.download_raw_samples()
    assert sorted(name for name, _ in listed) == c["names"]
    for name, url in listed:
        assert requests.get(url, timeout=10).content == (Path(c["pictures"]) / name).read_bytes()
    assert client.get_processed_until_timestamp() == 0
    assert len(client.download_new_raw_samples()) == len(c["names"])
    assert abs(client.get_processed_until_timestamp() - time.time()) < 10
    assert client.download_new_raw_samples() == []
    client.update_processed_until_timestamp(12)
    assert client.get_processed_until_timestamp() == 12


@run.step
def embeddings(c):
    client = c["client"]
    expect(EmbeddingDoesNotExistError, client.get_embedding_by_name, "default")
    c["vectors"] = make_vectors(len(c["mapping"]))
    path = Path(c["work"]) / "embeddings.csv"
    order = np.random.default_rng(1).permutation(len(c["mapping"]))
    write_csv(path, [c["mapping"][i] for i in order], c["vectors"][order])
    client.upload_embeddings(str(path), "default")
    first = client.embedding_id
    assert client.get_embedding_by_name("default").is_processed
    write_csv(path, c["mapping"][:3], c["vectors"][:3])
    client.upload_embeddings(str(path), "default")
    second = client.embedding_id
    assert first != second
    url = client._embeddings_api.get_embeddings_csv_read_url_by_id(client.dataset_id, second)
    _header, rows = read_csv(requests.get(url, timeout=10).text)
    assert [row[0] for row in rows] == c["mapping"]
    assert np.allclose([[float(v) for v in row[1:-1]] for row in rows], c["vectors"])
    names = [e.id for e in client._embeddings_api.get_embeddings_by_dataset_id(client.dataset_id)]
    assert names == [second, first]
    # 1.2.x takes the last entry, which is the oldest.
    del client.embedding_id
    client.set_embedding_id_to_latest()
    assert client.embedding_id == first


@run.step
def samplings(c):
    client = c["client"]
    first = client.sampling(SamplerConfig(method=SamplingMethod.CORESET, n_samples=4, name="first picks"))
    picked = bits_of(first.bit_mask_data)
    assert len(picked) == 4 and first.tot_size == len(c["mapping"])
    check_farthest_first(c["vectors"], picked, [])
    config = SamplerConfig(method=SamplingMethod.CORESET, n_samples=7, name="second picks")
    second = client.sampling(config, preselected_tag_id=first.id)
    both = bits_of(second.bit_mask_data)
    assert len(both) == 7 and set(picked) <= set(both) and second.prev_tag_id == first.id
    check_farthest_first(c["vectors"], both, picked)
    new = client.get_filenames_in_tag(second, exclude_parent_tag=True)
    assert new == [c["mapping"][i] for i in both if i not in picked]
    expect(RuntimeError, client.sampling, config)
    third = client.sampling(SamplerConfig(method=SamplingMethod.RANDOM, n_samples=5, name="random picks"))
    assert len(bits_of(third.bit_mask_data)) == 5


@run.step
def active_learning(c):
    client = c["client"]
    agent = ActiveLearningAgent(client)
    assert sorted(agent.query_set) == sorted(c["mapping"]) and agent.labeled_set == []

    class Scorer:
        def calculate_scores(self):
            return {"uncertainty_margin": np.linspace(0, 1, len(c["mapping"]))}

    agent.query(SamplerConfig(method=SamplingMethod.ACTIVE_LEARNING, n_samples=3, name="by score"), Scorer())
    assert agent.added_set == c["mapping"][-3:], agent.added_set
    agent.query(SamplerConfig(method=SamplingMethod.CORAL, n_samples=5, name="by both"), Scorer())
    assert len(agent.labeled_set) == 5 and len(agent.added_set) == 2


@run.step
def tags_from_names_and_arithmetics(c):
    client = c["client"]
    client.create_tag_from_filenames(c["mapping"][2:5], "chosen")
    tag = next(t for t in client.get_all_tags() if t.name == "chosen")
    assert bits_of(tag.bit_mask_data) == [2, 3, 4]
    assert client.get_filenames_in_tag(tag) == c["mapping"][2:5]
    expect(RuntimeError, client.create_tag_from_filenames, c["mapping"][:1], "chosen")
    body = TagArithmeticsRequest(
        tag_id1=tag.id, tag_id2=tag.prev_tag_id, operation=TagArithmeticsOperation.UNION
    )
    reply = client._tags_api.perform_tag_arithmetics_bitmask(body, client.dataset_id)
    assert bits_of(reply.bit_mask_data) == list(range(len(c["mapping"])))


@run.step
def custom_metadata(c):
    client = c["client"]
    metadata = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(c["mapping"])],
        "metadata": [{"image_id": i, "weather": f"kind {i}"} for i in range(len(c["mapping"]))],
    }
    client.upload_custom_metadata(metadata, max_workers=2)
    samples = client._samples_api.get_samples_by_dataset_id(dataset_id=client.dataset_id)
    assert [s.custom_meta_data["weather"] for s in samples] == [f"kind {i}" for i in range(len(samples))]


@run.step
def download_dataset(c):
    client = c["client"]
    target = Path(c["work"]) / "downloaded"
    body = TagArithmeticsRequest(
        tag_id1=next(t.id for t in client.get_all_tags() if t.name == "initial-tag"),
        tag_id2=next(t.id for t in client.get_all_tags() if t.name[:2] == "20"),
        operation=TagArithmeticsOperation.DIFFERENCE,
        new_tag_name="the full ones",
    )
    client._tags_api.perform_tag_arithmetics(body, client.dataset_id)
    make_folders(target, c["names"])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client.download_dataset(str(target), tag_name="the full ones", verbose=False)
    got = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert got == c["names"], (got, [str(warning.message) for warning in told])


if __name__ == "__main__":
    run.main()
